from dataclasses import dataclass

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
