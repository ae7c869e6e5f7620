"""The one list of options: what is refused and how, other names, flags, the README's table, the schema."""

import argparse
import re
from pathlib import Path

import pytest

from sonic_ms import options as stage
from sonic_ms.base.options import BaseOptions, what_quality_sets
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.errors import UsageError
from sonic_ms.options import parse
from sonic_ms.pipeline import all_options

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"duration": -1}, "duration is -1"),
        ({"min_resolution": 8}, "64 to 4096"),
        ({"dynamic_scale": 9}, "0 to 3"),
        ({"face": "biggest"}, "'largest' or an index"),
        ({"align_offset": 5}, "-2 to 2 seconds"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        parse(EdgeOptions, values)


def test_options_take_what_a_command_line_gives():
    options = parse(EdgeOptions, {"face": 1, "face_box": [1, 2, 3, 4], "duration": 2})
    assert (options.face, options.face_box, options.duration) == ("1", (1.0, 2.0, 3.0, 4.0), 2.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"duration": float("nan")}, "duration is nan; expected a positive number of seconds"),
        ({"duration": float("inf")}, "duration is inf"),
        ({"duration": "3"}, "duration is '3'"),
        ({"min_resolution": 300.5}, "min_resolution is 300.5; expected a whole number from 64 to 4096 pixels"),
        ({"keep_resolution": "yes"}, "keep_resolution is 'yes'; expected true or false"),
        ({"seed": True}, "seed is True"),
        ({"face": "\u00b2"}, "'largest' or an index such as 0"),
        ({"face_box": [1, 2, 3]}, "four numbers"),
        ({"face_box": [1, 2, 3, float("nan")]}, "four numbers"),
        ({1: 2}, "unknown keys 1; known are duration"),
        ({"seed": 10**5000}, "seed is"),
    ],
)
def test_values_of_files_are_refused_in_one_line(values, message):
    with pytest.raises(UsageError, match=message) as error:
        parse(EdgeOptions, values, "a.yaml")
    assert str(error.value).startswith("a.yaml: ") and "\n" not in str(error.value) and len(str(error.value)) < 400


def test_other_names_mean_the_same():
    assert parse(EdgeOptions, {"resolution": 300, "lip_sync_refinement": False, "temporal_smoothing": False}) == parse(
        EdgeOptions, {"min_resolution": 300, "lip_sync_correction": False, "smooth_motion": False}
    )
    assert parse(BaseOptions, {"steps": 3}).inference_steps == 3
    with pytest.raises(UsageError, match=r"steps is another name of inference_steps, and both are given"):
        parse(BaseOptions, {"inference_steps": 4, "steps": 3})


def test_an_option_of_another_model_is_named():
    for model, kind, option, owner in (
        ("sonic-base", BaseOptions, "smooth_motion", "sonic-edge"),
        ("sonic-edge", EdgeOptions, "inference_steps", "sonic-base"),
        ("sonic-edge", EdgeOptions, "steps", "sonic-base"),
    ):
        with pytest.raises(UsageError, match=f"{option} is for {owner}; leave it out"):
            parse(kind, {option: 1}, "options", stage.owners(all_options(), model))


def test_room_without_crop_is_refused_by_sonic_base():
    with pytest.raises(UsageError, match=r"expand_ratio is 0\.5 without crop"):
        parse(BaseOptions, {"expand_ratio": 0.5})
    assert parse(BaseOptions, {"expand_ratio": 0.5, "crop": True}).expand_ratio == 0.5
    assert parse(EdgeOptions, {"expand_ratio": 0.5}).expand_ratio == 0.5


def test_every_option_has_flags_for_each_of_its_names():
    parser = argparse.ArgumentParser()
    stage.add_flags(parser, all_options())
    known = set(parser._option_string_actions)
    for kind in all_options().values():
        for name in stage.names(kind):
            assert f"--{name.replace('_', '-')}" in known
    given = parser.parse_args(
        ["--resolution", "300", "--no-lip-sync-refinement", "--one-branch-at-a-time", "--face-box", "1,2,3,4"]
    )
    assert stage.from_flags(given, all_options()) == {
        "min_resolution": 300, "lip_sync_correction": False, "batch_branches": False, "face_box": (1.0, 2.0, 3.0, 4.0),
    }  # fmt: skip


def test_the_schema_says_ranges_defaults_and_units():
    properties = stage.schema(EdgeOptions)["properties"]
    assert (
        properties["min_resolution"] | {"minimum": 64, "maximum": 4096, "default": 512, "unit": "pixels"}
        == properties["min_resolution"]
    )
    assert all(one["description"] for one in properties.values())


def test_the_table_in_the_readme_is_the_declaration():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- options -->\n(.*?)\n<!-- /options -->", text, re.S).group(1)
    assert found == stage.table(all_options())


def test_an_interval_is_two_shares_in_order():
    options = parse(BaseOptions, {"image_guidance_interval": [0, 0.5]})
    assert options.image_guidance_interval == (0.0, 0.5)
    for wrong in ([0.5, 0.2], [-0.1, 1], [0, 1.1], [0.5], [0, 0.5, 1], "0,1", [0, float("nan")]):
        with pytest.raises(UsageError, match="expected two shares from 0 to 1, the first no larger than the last"):
            parse(BaseOptions, {"audio_guidance_interval": wrong})


def test_intervals_and_boxes_are_flags_of_so_many_numbers(capsys):
    parser = argparse.ArgumentParser()
    stage.add_flags(parser, all_options())
    given = parser.parse_args(["--audio-guidance-interval", "0,0.5"])
    assert stage.from_flags(given, all_options()) == {"audio_guidance_interval": (0.0, 0.5)}
    for flag, value, words in (
        ("--audio-guidance-interval", "0,0.5,1", "is not first,last"),
        ("--face-box", "0,0.5", "is not x,y,w,h"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args([flag, value])
        assert words in capsys.readouterr().err


def test_quality_sets_what_is_not_given():
    assert parse(BaseOptions, {"quality": "best"}) == parse(BaseOptions, {})
    fast = parse(BaseOptions, {"quality": "fast"})
    assert (fast.feature_cache, fast.guidance_reuse, fast.image_guidance_interval) == (3, 3, (0.0, 0.6))
    mine = parse(BaseOptions, {"quality": "fast", "feature_cache": 1, "image_guidance_interval": [0, 1]})
    assert (mine.feature_cache, mine.guidance_reuse, mine.image_guidance_interval) == (1, 3, (0.0, 1.0))
    assert what_quality_sets(mine).startswith("feature_cache 1, feature_cache_branch 0, guidance_reuse 3, image_guid")
    assert parse(BaseOptions, {"quality": "balanced"}).feature_cache_branch == 1
    for wrong in ("good", 3, ["fast"]):
        with pytest.raises(UsageError, match="expected best, balanced or fast"):
            parse(BaseOptions, {"quality": wrong})
