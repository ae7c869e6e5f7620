import time
from dataclasses import dataclass
from itertools import pairwise

import pytest

from sonic_ms.errors import InputMissingError, UsageError
from sonic_ms.files.config import from_dict, read_yaml


@dataclass(frozen=True)
class Inner:
    steps: int
    rate: float = 0.1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str = "x"
    sizes: tuple[int, int] = (1, 2)


def test_nested_values_are_built():
    built = from_dict(Outer, {"inner": {"steps": 3, "rate": 1}, "sizes": [4, 5]}, "here")
    assert built == Outer(Inner(3, 1.0), "x", (4, 5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"steps": 1}, "nmae": "y"}, "unknown keys nmae"),
        ({"inner": {"steps": 1, "rat": 2}}, "unknown keys rat"),
        ({}, "missing keys inner"),
        ({"inner": {"steps": "3"}}, "steps is '3'; expected int"),
        ({"inner": {"steps": True}}, "expected int"),
        ({"inner": 5}, "expected a mapping"),
        ({"inner": {"steps": 1}, "sizes": [1, 2, 3]}, "expected 2 values"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        from_dict(Outer, values, "here")


def test_yaml_files(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 3\n")
    assert read_yaml(path) == {"seed": 3}
    path.write_text("- 1\n")
    with pytest.raises(UsageError, match="expected a mapping"):
        read_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(UsageError, match="not YAML"):
        read_yaml(path)
    with pytest.raises(InputMissingError):
        read_yaml(tmp_path / "none.yaml")


BOMB = "a: &a {x: 1}\n" + "".join(
    f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"uses the alias \*a; write the value out"),
        ("a: &a [*a]", r"uses the alias \*a"),
        ("a: " + "[" * 100_000, "nested too deeply; at most 100 levels"),
        ("a: " + "[" * 300 + "]" * 300, "nested too deeply"),
        ("a: 1\n" * 100_000, "more than 131072 bytes"),
        ("a: !!timestamp x", "is not YAML"),
        ("a: !!bool x", "is not YAML"),
        ("a: !!int ''", "is not YAML"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("a: 2001-99-99", "is not YAML"),
        ("a: !!python/object/apply:os.system [x]", "is not YAML"),
        ("? [a]\n: 1", "is not YAML"),
        ("a: \xff", "is not YAML"),
    ],
)
def test_no_text_ends_in_another_error_or_takes_long(tmp_path, text, message):
    path, started = tmp_path / "a.yaml", time.monotonic()
    path.write_text(text, encoding="latin1")
    with pytest.raises(UsageError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500
    assert time.monotonic() - started < 20
