"""The invisible watermark: what is in comes out, after the encodings that are promised; nothing is found where nothing
is; it is not seen."""

import os
import subprocess

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.errors import UsageError
from sonic_ms.labels import code, save, watermark
from sonic_ms.labels.save import Labels, save_video
from sonic_ms.media.ffmpeg import ffmpeg_exe
from sonic_ms.media.video import Video, read_video

NUMBER = "123456789abc" + 20 * "0"
ID = 0x123456789ABC


def moving(astronaut, n=75):
    """The photo, in which a square of noise as large as a face moves about."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    for i in range(n):
        frame = astronaut.copy()
        x = 150 + round(60 * np.sin(i / 5))
        frame[100:220, x : x + 120] = noise
        yield frame


def made(astronaut, watermark=True, n=75):
    return Video(lambda: moving(astronaut, n), (512, 512), n, None, labels=Labels(NUMBER, watermark))


@pytest.fixture(scope="module")
def marked(astronaut, tmp_path_factory):
    return save_video(made(astronaut), tmp_path_factory.mktemp("marked") / "a.mp4", progress=False)


@pytest.fixture(scope="module")
def unmarked(astronaut, tmp_path_factory):
    return save_video(made(astronaut, False), tmp_path_factory.mktemp("plain") / "a.mp4", progress=False)


def encode(source, target, *options):
    command = [ffmpeg_exe(), "-v", "error", "-y", "-i", source, *options, "-c:v", "libx264", target]
    subprocess.run([str(part) for part in command], check=True)
    return target


def detect(path):
    return watermark.read_mark(*watermark.cells_of(path))


def test_a_pattern_is_read_back_with_a_third_of_its_signs_wrong():
    rng = np.random.default_rng(0)
    for number in (0, 1, ID, 2**48 - 1):
        signs = code.pattern(number)
        assert set(np.unique(signs)) == {-1, 1} and code.read_pattern(signs) == (number, pytest.approx(1))
        wrong = np.where(rng.permutation(1024).reshape(32, 32) < 300, -signs, signs)
        assert code.read_pattern(wrong)[0] == number


def test_patterns_are_the_same_for_ever():
    """Marks of today have to be read tomorrow: another NumPy or another machine must not change them."""
    bits = np.packbits(code.pattern(ID).astype(int).ravel() > 0)
    assert bits[:8].tobytes().hex() == "68e830ce3731c548"


def test_noise_is_no_mark():
    """The likeness that noise reaches stays below the one that is asked for, whose chance is computed."""
    rng = np.random.default_rng(0)
    best = max(code.read_pattern(rng.standard_normal((32, 32)))[1] for _ in range(2000))
    limit = next(one for one in np.arange(0, 1, 0.001) if code.false_alarm(one, watermark.PHASES) <= -9)
    assert 0.2 < best < limit < 0.35


def test_a_byte_that_is_wrong_is_noticed():
    """One word of eight stands for another byte: the likeness says nothing, the CRC does."""
    signs, other = code.pattern(ID), code.pattern(ID ^ 0xFF)
    places = np.unravel_index(code._PLACES[5 * 128 : 6 * 128], (32, 32))
    signs[places] = other[places]
    number, likeness = code.read_pattern(signs)
    assert number is None and likeness == pytest.approx(1)


def cells(amount, delay, seed=0, n=75):
    """Light of the cells of 3 s: noise of one level and `amount` levels of the mark, `delay` seconds into a swing."""
    time = np.arange(n)[:, None, None] / 25 + delay
    noise = np.random.default_rng(seed).standard_normal((n, 32, 32))
    return (100 + noise + amount * code.pattern(ID) * np.sin(2 * np.pi * time / watermark.PERIOD)).astype(np.float32)


@pytest.mark.parametrize("delay", np.arange(0, 0.96, 0.12))
def test_a_video_may_begin_anywhere_in_a_swing(delay):
    assert watermark.read_mark(cells(0.3, delay), 25)[0] == ID


def test_what_chance_could_have_made_is_no_mark(monkeypatch):
    for likeness, found in ((0.30, None), (0.32, None), (0.36, 5)):
        monkeypatch.setattr(watermark, "read_pattern", lambda values, likeness=likeness: (5, likeness))
        number, _, chance = watermark.read_mark(cells(0, 0), 25)
        assert number == found and (chance < -9) == (found is not None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-crf", "28"),
        ("-vf", "scale=iw/2:-2", "-crf", "28"),
        ("-crf", "33"),
        ("-ss", "0.7", "-crf", "28"),
        ("-r", "30", "-crf", "28"),
    ],
    ids=["as made", "crf 28", "half size, crf 28", "crf 33", "cut", "30 frames a second"],
)
def test_the_number_survives(marked, tmp_path, options):
    path = encode(marked, tmp_path / "again.mp4", *options) if options else marked
    number, likeness, chance = detect(path)
    assert number == ID and likeness > 0.5 and chance < -30


def test_nothing_is_found_in_an_unmarked_video(unmarked):
    assert detect(unmarked)[0] is None


def test_it_is_not_seen(astronaut):
    """PSNR of at least 42 dB in every frame; a flat area grows lighter and darker by less than one level of 255, and by
    less than a third of one from frame to frame."""
    flat = np.full((512, 512, 3), 128, np.uint8)
    for photo in (astronaut, flat):
        mark = watermark.Marker(ID)
        frames = np.stack([mark(photo, i / 25) for i in range(24)]).astype(np.float32)
        assert 10 * np.log10(255**2 / ((frames - photo) ** 2).mean((1, 2, 3)).max()) >= 42
    light = frames[..., 0].reshape(24, 32, 16, 32, 16).mean((2, 4))
    assert 0.3 < np.abs(light - 128).max() < 1
    assert np.abs(np.diff(light, axis=0)).max() < 1 / 3


def test_colours_stay_within_their_range():
    for value in (0, 255):
        frame = np.full((128, 128, 3), value, np.uint8)
        marked = watermark.Marker(ID)(frame, 0.24).astype(int)
        assert np.abs(marked - value).max() <= 2 and (marked != value).any()


@pytest.mark.parametrize(
    ("size", "seconds", "words"), [((512, 100), 5, "512x100 are too small"), ((512, 512), 1.5, "1.5 s are too short")]
)
def test_videos_that_cannot_carry_it(size, seconds, words):
    assert words in watermark.too_little(size, seconds)
    assert watermark.too_little((128, 128), 2) is None


def test_the_shortest_and_the_smallest_that_are_promised(tmp_path, astronaut):
    small = np.ascontiguousarray(astronaut[::4, ::4])
    video = Video(lambda: iter([small] * 50), (128, 128), 50, None, labels=Labels(NUMBER))
    assert detect(save_video(video, tmp_path / "a.mp4", progress=False))[0] == ID


def test_a_number_that_is_none():
    with pytest.raises(UsageError, match="hexadecimal"):
        save.mark_of("job-17")


def test_the_command_prints_the_number(capsys, marked, unmarked):
    assert main(["label", str(marked), "--detect"]) == 0
    assert capsys.readouterr().out.startswith("123456789abc, confidence 0.")
    assert main(["label", str(unmarked), "--detect"]) == 0
    assert capsys.readouterr().out == "no watermark found\n"


def test_frames_of_a_video_stay_as_they_were(astronaut, marked):
    """Only the file carries the mark: same seed, same frames."""
    video = made(astronaut)
    assert np.array_equal(next(iter(video)), next(moving(astronaut)))
    assert os.path.getsize(marked) > 0 and len(list(read_video(marked))) == 75
