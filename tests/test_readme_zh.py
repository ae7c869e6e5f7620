"""README.zh-CN.md says what README.md says: the same commands, the same links, the same options."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
EACH_OTHER = {"README.md", "README.zh-CN.md"}
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)


def commands(text):
    """Lines of every fenced block, without comments."""
    blocks = (re.sub(r"(^|\s)#.*", "", block, flags=re.M) for block in FENCED.findall(text))
    return [[line.strip() for line in block.splitlines() if line.strip()] for block in blocks]


def links(text):
    """Where links and pictures lead, except from one README to the other."""
    return set(re.findall(r"\]\(([^)\s]+)[^)]*\)", FENCED.sub("", text))) - EACH_OTHER


def options(text):
    """Names in the first column of the table of options."""
    table = re.search(r"<!-- options -->\n(.*?)\n<!-- /options -->", text, re.S).group(1)
    return [name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_the_commands_are_the_same():
    assert commands(ENGLISH)
    assert commands(CHINESE) == commands(ENGLISH)


def test_the_links_are_the_same():
    assert links(ENGLISH)
    assert links(CHINESE) == links(ENGLISH)


def test_every_option_is_named():
    assert options(ENGLISH)
    assert not [name for name in options(ENGLISH) if f"`{name}`" not in CHINESE]
