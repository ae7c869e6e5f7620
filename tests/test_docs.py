"""README and docs/ say what is so: links lead somewhere, named files exist, command lines parse."""

import argparse
import functools
import re
import shlex
from pathlib import Path

import pytest

from sonic_ms.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("README*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = ("bench/", "configs/", "convert/", "deploy/", "docs/", "scripts/", "sonic_ms/", "tests/", "tools/", ".ci/")
SOURCE = (".py", ".sh", ".yaml", ".md")  # what is named with one of these is a file of the repository
THEIRS = ("set_env.sh", "aclnnConvolution.md", "docs/zh/")  # files of CANN and of its sources
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def inline(page):
    """What stands between backticks in the running text."""
    return re.findall(r"`([^`\n]+)`", FENCED.sub("", page.read_text(encoding="utf-8")))


def lines(page):
    """Lines of the fenced blocks, without comments and without the brackets of [--what-may-be-left-out]; a line that
    ends with a backslash goes on."""
    blocks = FENCED.findall(page.read_text(encoding="utf-8"))
    text = re.sub(r"(^|\s)#.*|[\[\]]", " ", "\n".join(blocks).replace("\\\n", " "), flags=re.M)
    return [line for line in text.splitlines() if line.strip()]


def exists(name, page):
    """Whether a path is there, from the root of the repository or from the page. `a/*.py` and `a/{b,c}.py` are many."""
    name = name.partition("::")[0]  # a test in a file
    names = [name]
    if braces := re.search(r"\{(.+?)\}", name):
        names = [name.replace(braces[0], part) for part in braces[1].split(",")]
    return all(any(ROOT.glob(one)) or (page.parent / one).exists() for one in names)


@every_page
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [one for one in targets if "://" not in one and not (page.parent / one).exists()]
    assert not missing


@every_page
def test_files_that_are_named_exist(page):
    words = [text for text in inline(page) if " " not in text]
    words += [word for text in (*inline(page), *lines(page)) for word in text.split() if word.startswith(FOLDERS)]
    named = [one for one in words if one.partition("::")[0].endswith(SOURCE) or one.startswith(FOLDERS)]
    missing = [one for one in named if not one.startswith(THEIRS) and not exists(one, page)]
    assert not missing


@every_page
def test_tests_that_prove_something_exist(page):
    """`test_x` in the running text is a file or a function, or begins the name of one."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    named = set(re.findall(r"(?<![\w/])test_[a-z]\w+", text)) - {"test_inside_l1"}  # a column of a log
    assert not [one for one in named if not any(known.startswith(one) for known in known_tests())]
    folders = re.findall(r"(?<![\w/])tests/[\w/]+", text)
    assert not [one for one in folders if not any(ROOT.glob(f"{one}*"))]


@functools.cache
def known_tests():
    """Names of all files and functions of tests."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    functions = re.findall(r"def (test_\w+)", "\n".join(path.read_text(encoding="utf-8") for path in files))
    return {*functions, *(path.stem for path in files)}


@every_page
def test_modules_that_are_run_exist(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m (bench[\w.]+|sonic_ms[\w.]*)", text)
    assert not [one for one in modules if not any(ROOT.glob(f"{one.rstrip('.').replace('.', '/')}*"))]


def commands(line):
    """Arguments of every sonic-ms in a line of shell."""
    words = [[]]
    shell = shlex.shlex(line, posix=True, punctuation_chars=True)
    shell.whitespace_split = True
    for word in shell:
        words.append([]) if set(word) <= set("&|;") else words[-1].append(word)
    for part in words:
        if part[:2] == ["docker", "run"] and "sonic-ms" in part:  # the image is named so
            part = part[part.index("sonic-ms") :]
        if part[:1] == ["sonic-ms"]:
            yield part[1:]


def problem(arguments):
    """What the parser says against a command line, or None. One with `...` is only held against the names."""
    arguments = [one for one in arguments if one != "-h"]
    if "..." in arguments:
        return unknown_name(arguments)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "error", refuse)
            build_parser().parse_args(arguments)
    except ValueError as error:
        return str(error)


def refuse(parser, message):
    raise ValueError(f"{parser.prog}: {message}")


def unknown_name(arguments):
    """The first command or flag that does not exist, or None."""
    parser, words = build_parser(), list(arguments)
    while choices := next(
        (one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction)), None
    ):
        if not words or words[0].startswith("-"):
            break
        if words[0] not in choices:
            return f"{parser.prog} has no {words[0]}"
        parser = choices[words.pop(0)]
    flags = [word.partition("=")[0] for word in words if re.match("-[a-zA-Z]|--[a-z]", word)]
    return next((f"{parser.prog} has no {flag}" for flag in flags if flag not in parser._option_string_actions), None)


@every_page
def test_command_lines_parse(page):
    shell = [line for line in lines(page) if "sonic-ms" in line]
    problems = [(line, problem(arguments)) for line in shell for arguments in commands(line)]
    assert not [one for one in problems if one[1]]


@every_page
def test_commands_that_are_named_exist(page):
    """In running text arguments may be left out: `sonic-ms lint`."""
    problems = [(text, unknown_name(arguments)) for text in inline(page) for arguments in commands(text)]
    assert not [one for one in problems if one[1]]


def test_the_tests_above_see_what_is_wrong(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](gone.md) `gone.py` `sonic-ms gone`\n```bash\nsonic-ms demo --gone   # no flag\n```\n")
    for check in (test_links_lead_somewhere, test_files_that_are_named_exist, test_command_lines_parse):
        with pytest.raises(AssertionError):
            check(page)
    with pytest.raises(AssertionError):
        test_commands_that_are_named_exist(page)
    assert problem(["demo", "--duration", "2"]) is None
    assert problem(["demo", "--duration", "two"]).endswith("invalid float value: 'two'")
