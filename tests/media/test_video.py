"""Video: what is written comes back (frames, length, colours, sync); a failure leaves nothing behind."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import InputMissingError, OutputError, VideoError
from sonic_ms.media import audio, ffmpeg, video

SIZE = (128, 96)


def grey(level, size=SIZE):
    return np.full((size[1], size[0], 3), level, np.uint8)


def write(path, frames, size=SIZE, sound=None, **options):
    with video.VideoWriter(path, size, sound, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def lag_of(heard, expected):
    """Samples by which `heard` comes later."""
    n = min(len(heard), len(expected))
    return np.correlate(heard[:n], expected[:n], "full").argmax() - (n - 1)


@pytest.mark.parametrize("seconds", [1.0, 1.013, 1.03, 2.5])
def test_length_and_sync_of_an_array(tmp_path, make_speech, seconds):
    speech = make_speech(seconds)[0]
    count = audio.frame_count(len(speech))
    path = write(tmp_path / "a.mp4", [grey(i % 200) for i in range(count)], sound=speech)
    info = video.probe(path)
    assert (info.width, info.height, info.fps, info.frames) == (*SIZE, 25.0, count)
    assert (info.video_codec, info.audio_codec, info.pix_fmt) == ("h264", "aac", "yuv420p")
    assert info.colour.startswith("tv, bt709,")  # "bt709/unknown/unknown" where primaries or transfer lack
    assert abs(info.audio_seconds - len(speech) / 16000) <= 1024 / 16000
    assert abs(info.audio_seconds - info.video_seconds) <= 1024 / 16000
    assert lag_of(audio.load_audio(path), speech) == 0


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (96000, 2)])
def test_length_and_sync_of_a_file(tmp_path, make_speech, rate, channels):
    samples = make_speech(2.0)[0]
    high = np.repeat(np.interp(np.arange(2 * rate) / rate * 16000, np.arange(32000), samples), channels)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes((high * 32767).astype("<i2").tobytes())
    speech = audio.load_audio(tmp_path / "a.wav", duration=1.51)
    count = audio.frame_count(len(speech))
    path = write(tmp_path / "a.mp4", [grey(9)] * count, sound=tmp_path / "a.wav", audio_duration=1.51)
    info = video.probe(path)
    assert info.frames == count
    assert abs(info.audio_seconds - 1.51) <= 1024 / 48000
    assert abs(lag_of(audio.load_audio(path), speech)) <= 1


def test_audio_shorter_than_video_does_not_cut_frames(tmp_path):
    path = write(tmp_path / "a.mp4", [grey(i) for i in range(50)], sound=np.zeros(8000, np.float32))
    info = video.probe(path)
    assert info.frames == 50 and abs(info.audio_seconds - 0.5) < 0.07


def test_frames_come_back_in_order_and_colour(tmp_path):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128), (255, 255, 255), (0, 0, 0), (230, 170, 9)]
    frames = [np.broadcast_to(np.uint8(colour), (96, 128, 3)) for colour in colours for _ in range(2)]
    path = write(tmp_path / "a.mp4", frames)
    back = list(video.read_video(path))
    assert len(back) == len(frames)
    for expected, frame in zip(frames, back):
        assert frame.shape == expected.shape and np.abs(frame.astype(int) - expected).max() <= 4
    assert video.probe(path).audio_codec is None and video.probe(path).audio_seconds == 0


def test_photo_keeps_its_detail(tmp_path, astronaut):
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity

    path = write(tmp_path / "a.mp4", [astronaut] * 30, size=(512, 512))
    for index, frame in enumerate(video.read_video(path)):
        if index % 10 == 0:
            similarity = structural_similarity(rgb2gray(astronaut), rgb2gray(frame), data_range=1)
            assert similarity >= 0.985, index


def test_faststart_and_odd_sides(tmp_path):
    path = write(tmp_path / "a.mp4", [grey(50, (65, 67))] * 3, size=(65, 67))
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")
    assert next(video.read_video(path)).shape == (66, 64, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/a.mp4", "does not exist"), ("a.avi", "suffix"), ("old.mp4", "exists already"), ("dir.mp4", "is a folder")],
)
def test_check_output(tmp_path, name, message):
    (tmp_path / "old.mp4").write_text("precious")
    (tmp_path / "dir.mp4").mkdir()
    with pytest.raises(OutputError, match=message):
        video.check_output(tmp_path / name)
    with pytest.raises(OutputError, match=message):
        video.VideoWriter(tmp_path / name, SIZE)
    assert (tmp_path / "old.mp4").read_text() == "precious"
    assert video.check_output(tmp_path / "old.mp4", overwrite=True) == tmp_path / "old.mp4"


def test_check_output_tries_the_folder():
    with pytest.raises(OutputError, match="cannot write into /proc"):  # refuses files even to root
        video.check_output("/proc/a.mp4")


def test_exception_leaves_nothing_and_keeps_the_old_file(tmp_path):
    old = tmp_path / "a.mp4"
    old.write_text("precious")
    writer = video.VideoWriter(old, SIZE, np.zeros(16000, np.float32), overwrite=True)
    with pytest.raises(KeyboardInterrupt), writer:
        for _ in range(30):
            writer.write(grey(1))
        assert len(os.listdir(tmp_path)) == 2 and writer._process.poll() is None
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.mp4"] and old.read_text() == "precious"
    assert writer._process.poll() is not None


def test_a_signal_while_the_sound_begins_leaves_nothing(tmp_path, monkeypatch):
    begin = threading.Thread.start

    def interrupted(thread):
        begin(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    writer = video.VideoWriter(tmp_path / "a.mp4", SIZE, np.zeros(16000, np.float32))
    with pytest.raises(KeyboardInterrupt), writer:
        pass
    assert not os.listdir(tmp_path) and writer._process.poll() is not None


def test_bad_frames_and_no_frames(tmp_path):
    for frame in (grey(1, (64, 64)), grey(1).astype(np.float32)):
        with pytest.raises(OutputError, match="expected"):
            write(tmp_path / "a.mp4", [grey(1), frame])
    with pytest.raises(OutputError, match="no frame"):
        write(tmp_path / "a.mp4", [])
    with pytest.raises(InputMissingError, match="no such file"):
        write(tmp_path / "a.mp4", [grey(1)], sound=tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(OutputError, match="encoding failed"):
        write(tmp_path / "a.mp4", [grey(1)] * 500, sound=tmp_path / "text.wav")
    assert os.listdir(tmp_path) == ["text.wav"]


def test_encoder_that_dies_midway(tmp_path):
    """The kernel ends ffmpeg when its file passes 20 kB."""
    rng = np.random.default_rng(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
    try:
        with pytest.raises(OutputError, match="encoding failed after"):
            write(tmp_path / "a.mp4", (rng.integers(0, 255, (96, 128, 3), np.uint8) for _ in range(2000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_full_disk_is_named(tmp_path, monkeypatch):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho 'av_write_frame(): No space left on device' >&2\necho bye >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "ffmpeg_exe", lambda: str(fake))
    with pytest.raises(OutputError, match=r"No space left on device.*free some space"):
        write(tmp_path / "a.mp4", [grey(1)] * 1000)


def test_ctrl_c_ends_everything(tmp_path):
    code = (
        "import sys, numpy as np; from sonic_ms.media.video import VideoWriter\n"
        "with VideoWriter(sys.argv[1], (64, 64)) as writer:\n"
        "    print(writer._process.pid, flush=True)\n"
        "    while True: writer.write(np.zeros((64, 64, 3), np.uint8))\n"
    )
    root = Path(video.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.mp4")],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with process:
        encoder = int(process.stdout.readline())
        time.sleep(0.3)
        assert os.listdir(tmp_path) != []
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(10) == -signal.SIGINT
    assert os.listdir(tmp_path) == []
    with pytest.raises(ProcessLookupError):
        os.kill(encoder, 0)


def test_write_video_is_lazy_and_repeatable(tmp_path, make_speech):
    speech = make_speech(1.0)[0]
    made = []

    def frames():
        for index in range(25):
            made.append(index)
            yield grey(index * 8)

    lazy = video.Video(frames, SIZE, 25, speech)
    assert made == [] and len(lazy) == 25 and lazy.fps == 25
    assert next(iter(lazy))[0, 0, 0] == 0 and made == [0]
    path = video.write_video(lazy, tmp_path / "a.mp4", progress=False)
    assert path == tmp_path / "a.mp4" and video.probe(path).frames == 25
    first = path.read_bytes()
    video.write_video(lazy, path, overwrite=True, progress=False)
    assert path.read_bytes() == first
    with pytest.raises(OutputError, match="exists"):
        video.write_video(lazy, path, progress=False)
    with pytest.raises(OutputError, match="25 frames were made, expected 30"):
        video.write_video(video.Video(frames, SIZE, 30, speech), tmp_path / "b.mp4", progress=False)
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_write_video_takes_the_recording_itself(tmp_path, make_speech):
    speech = make_speech(1.0)[0]
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(bytes(44100 * 4))
    lazy = video.Video(lambda: iter([grey(1)] * 25), SIZE, 25, speech, audio_source=tmp_path / "a.wav")
    path = video.write_video(lazy, tmp_path / "a.mp4", progress=False)
    assert audio.read_header(path).sample_rate == 44100


def test_reading_stops_early_without_an_orphan(tmp_path):
    path = write(tmp_path / "a.mp4", [grey(i % 250) for i in range(300)])
    frames = video.read_video(path)
    next(frames)
    frames.close()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    assert not children.exists() or not any(
        "ffmpeg" in Path(f"/proc/{pid}/cmdline").read_text() for pid in children.read_text().split()
    )


def test_reading_what_is_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    for name, kind in (("none.mp4", InputMissingError), ("text.mp4", VideoError)):
        for read in (video.probe, lambda path: next(video.read_video(path))):
            with pytest.raises(kind, match=name):
                read(tmp_path / name)
