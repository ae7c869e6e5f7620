"""The page's words, without a browser: both languages have all of them, and the page uses no others."""

import json
import re
from pathlib import Path

import pytest

from sonic_ms.errors import OUTCOMES, code_of
from sonic_ms.options import choices
from sonic_ms.pipeline import MODELS
from sonic_ms.serve import app, page_files

PAGE = page_files.FOLDER
WORDS = {name: json.loads((PAGE / f"{name}.json").read_text(encoding="utf-8")) for name in ("en", "zh-CN")}
ELSEWHERE = {"face", "max_audio_seconds"}  # options without a field of their own
both = pytest.mark.parametrize("language", WORDS)


def test_the_languages_have_the_same_words():
    help_of_the_declaration = {key for key in WORDS["zh-CN"] if key.startswith("help.")}
    assert set(WORDS["zh-CN"]) - help_of_the_declaration == set(WORDS["en"])
    for key in WORDS["en"]:
        assert set(re.findall(r"{\w+}", WORDS["en"][key])) == set(re.findall(r"{\w+}", WORDS["zh-CN"][key])), key


@both
def test_every_option_of_every_model_has_its_words(language):
    for kind in MODELS.values():
        for name, field in kind.Options.model_fields.items():
            if name in ELSEWHERE:
                continue
            assert f"option.{name}" in WORDS[language]
            assert language == "en" or f"help.{name}" in WORDS[language]
            assert {f"choice.{name}.{word}" for word in choices(field)} <= set(WORDS[language])


@both
def test_every_code_of_an_error_has_its_words(language):
    source = "".join(path.read_text(encoding="utf-8") for path in Path(app.__file__).parent.glob("*.py"))
    codes = set(re.findall(r'Problem\(\s*\d+,\s*"(\w+)"', source)) | {code_of(kind("")) for kind in OUTCOMES}
    assert len(codes) > 30
    assert {f"error.{code}" for code in codes} <= set(WORDS[language])


def test_the_page_uses_words_that_are_there():
    files = [*PAGE.glob("*.html"), *PAGE.glob("*.js")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    groups = "|".join({key.split(".")[0] for key in WORDS["en"]})
    used = set(re.findall(r'data-t(?:-label)?="([^"]+)"', text))
    used |= set(re.findall(rf'"((?:{groups})\.[a-z_]+)"', text)) | set(re.findall(r'say\([^,]+, "(\w+)"', text))
    used |= {f"error.{code}" for code in re.findall(r'Problem\(0, { code: "(\w+)"', text)}
    assert used <= set(WORDS["en"])
    prefixes = {"option", "choice", "error", *(found for found in re.findall(r"`(\w+)\.\$\{", text))}
    unused = {key for key in WORDS["en"] if key not in used and key.split(".")[0] not in prefixes}
    assert unused == set()


def test_no_script_or_style_is_inline_and_the_policy_says_so():
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", html)
    assert "unsafe" not in app.HEADERS["Content-Security-Policy"]
