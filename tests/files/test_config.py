from dataclasses import dataclass

import pytest

from sonic_ms.errors import InputMissingError, UsageError
from sonic_ms.files.config import GenerateOptions, from_dict, read_yaml


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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"duration": -1}, "duration is -1.0"),
        ({"min_resolution": 8}, "64 to 4096"),
        ({"dynamic_scale": 9}, "0 to 3"),
        ({"face": "biggest"}, "'largest' or an index"),
        ({"align_offset": 5}, "-2 to 2 seconds"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        from_dict(GenerateOptions, values, "options")


def test_options_take_what_a_command_line_gives():
    options = from_dict(GenerateOptions, {"face": 1, "face_box": (1, 2, 3, 4), "duration": 2}, "options")
    assert (options.face, options.face_box, options.duration) == ("1", (1.0, 2.0, 3.0, 4.0), 2.0)


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
