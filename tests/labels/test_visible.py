"""The visible label: as high as the standard asks, in the corner that was asked for, never over a face."""

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.errors import UsageError
from sonic_ms.labels import visible, watermark, write
from sonic_ms.labels.save import Labels, Operator, save_video
from sonic_ms.labels.visible import VisibleLabel
from sonic_ms.media.video import Video, probe, read_video
from sonic_ms.pipeline import all_options

NUMBER = "123456789abc" + 20 * "0"


def changed(frame, label):
    """(x, y, width, height) of the part that a label changes."""
    rows, columns = ((label(frame) != frame).any(2).any(axis).nonzero()[0] for axis in (1, 0))
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


@pytest.mark.parametrize("language", visible.TEXTS)
@pytest.mark.parametrize("short", [64, 300, 512, 1080, 2160])
def test_letters_are_five_per_cent_of_the_short_side(language, short):
    """The capital A, in ink that is more there than not; Chinese characters are higher."""
    ink = visible.plate(short, language) > 0.5
    columns = ink.any(0).nonzero()[0]
    gap = columns[0] + next(i for i in range(len(columns)) if not ink[:, columns[0] + i].any())
    assert ink[:, columns[0] : gap].any(1).sum() >= 0.05 * short


def test_every_glyph_is_in_the_font():
    from PIL import ImageFont

    font = ImageFont.truetype(str(visible.FONT), 40)
    missing = bytes(font.getmask("龘"))
    assert all(bytes(font.getmask(one)) != missing for text in visible.TEXTS.values() for one in text if one != "-")


@pytest.mark.parametrize("corner", visible.CORNERS)
def test_it_goes_where_it_was_asked_for(astronaut, corner):
    x, y, width, height = changed(astronaut, VisibleLabel((512, 512), "zh", corner, []))
    assert (x < 20) == ("left" in corner) and (y < 20) == ("top" in corner)
    assert (x + width > 492) == ("right" in corner) and (y + height > 492) == ("bottom" in corner)


@pytest.mark.parametrize("face", [(300, 300, 200, 200), (335, 260, 200, 200), (260, 10, 250, 490), (0, 250, 512, 262)])
def test_it_is_never_over_a_face(astronaut, face):
    """No pixel of the ellipse in the face's box changes, whatever corner was asked for."""
    for corner in visible.CORNERS:
        label = VisibleLabel((512, 512), "zh", corner, [face])
        y, x = np.mgrid[:512, :512] + 0.5
        inside = sum(((p - face[i] - face[i + 2] / 2) / (face[i + 2] / 2)) ** 2 for i, p in enumerate((x, y))) < 1
        assert inside.sum() > 1000 and not (label(astronaut) != astronaut)[inside].any()


def test_a_face_that_fills_the_frame():
    with pytest.raises(UsageError, match=r"no corner of the frame of 512x512 is free of the face; give a photo"):
        VisibleLabel((512, 512), "en", "bottom-right", [(0, 0, 512, 512)])


def test_it_is_white_on_dark_and_the_rest_stays(astronaut):
    label = VisibleLabel((512, 512), "en", "bottom-left", [])
    before = astronaut.copy()
    shown = label(astronaut)
    x, y, width, height = changed(astronaut, label)
    part = shown[y : y + height, x : x + width]
    assert part.max() == 255 and np.percentile(part, 20) < 0.4 * 255 + 1
    assert np.array_equal(astronaut, before)


def clip(path, frames, labels=None):
    size = frames[0].shape[1::-1]
    sound = np.random.default_rng(0).standard_normal(640 * len(frames)).astype(np.float32) / 20
    return save_video(Video(lambda: iter(frames), size, len(frames), sound, labels=labels), path, progress=False)


@pytest.mark.slow
def test_it_is_seen_in_a_video(tmp_path, astronaut):
    shown = VisibleLabel((512, 512), "zh", "top-right", [])(astronaut)
    assert visible.find(clip(tmp_path / "a.mp4", [shown] * 60)) == ("zh", "top-right")
    assert visible.find(clip(tmp_path / "b.mp4", [astronaut] * 60)) is None
    too_short = [shown] * 30 + [astronaut] * 30
    assert visible.find(clip(tmp_path / "c.mp4", too_short)) is None


@pytest.mark.slow
def test_label_write_puts_both_into_the_pictures(tmp_path, astronaut, capsys):
    """The file keeps its sound and its length, and its face."""
    path = clip(tmp_path / "a.mp4", [astronaut] * 60)
    before = probe(path)
    command = ["label", str(path), "--write", "--watermark", "--visible-label", "en", "--producer", "example.org"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("AIGC: generated, by example.org, number ")
    number = said[0].split()[-1]
    assert said[1] == "visible: en, bottom-right" and said[2].startswith(f"watermark: {number[:12]}, confidence ")
    after = probe(path)
    assert (after.frames, after.audio_seconds) == (before.frames, before.audio_seconds)
    assert [one.name for one in tmp_path.iterdir()] == ["a.mp4"]
    assert main(command) == 2  # a second watermark
    assert "has the watermark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frames", "side", "words"), [(30, 256, "1.2 s are too short"), (60, 64, "64x64 are too small")]
)
def test_too_little_for_a_watermark(tmp_path, astronaut, frames, side, words):
    path = clip(tmp_path / "a.mp4", [np.ascontiguousarray(astronaut[:side, :side])] * frames)
    data = path.read_bytes()
    with pytest.raises(UsageError, match=words):
        write.write_labels(path, Operator(), write.Wanted(watermark=True))
    assert path.read_bytes() == data and [one.name for one in tmp_path.iterdir()] == ["a.mp4"]


def test_changes_without_write_are_refused(tmp_path, capsys):
    assert main(["label", str(tmp_path / "a.mp4"), "--watermark"]) == 2
    assert "add --write" in capsys.readouterr().err


def test_corners_and_languages_are_those_of_the_options():
    for kind in all_options().values():
        fields = kind.model_fields
        assert fields["label_corner"].default == visible.CORNERS[0]
        assert sorted(fields["label_corner"].annotation.__args__) == sorted(visible.CORNERS)
        assert sorted(fields["visible_label"].annotation.__args__[0].__args__) == sorted(visible.TEXTS)


@pytest.mark.slow
def test_labels_of_a_video_do_not_disturb_one_another(tmp_path, astronaut):
    shown = VisibleLabel((512, 512), "zh", "bottom-right", [])(astronaut)
    path = clip(tmp_path / "a.mp4", [shown] * 60, Labels(NUMBER))
    assert visible.find(path) == ("zh", "bottom-right")
    assert watermark.read_mark(*watermark.cells_of(path))[0] == 0x123456789ABC
    assert len(list(read_video(path))) == 60
