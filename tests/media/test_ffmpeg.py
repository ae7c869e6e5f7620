"""The one wrapper around ffmpeg: what it may open, how long and with how much memory; damaged videos."""

import random
import subprocess
from pathlib import Path

import numpy as np
import pytest

import sonic_ms
from sonic_ms.data.decode import frames_of, samples_of
from sonic_ms.errors import AudioError, ResourceError, SonicError, VideoError, exit_code
from sonic_ms.media import audio, ffmpeg, video

pytestmark = [pytest.mark.slow]


def run(*arguments):
    subprocess.run([ffmpeg.ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """64x64, 25 frames a second, 1 s with a tone; mp4, and the same as ts."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    source = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=25:d=1", "-f", "lavfi", "-i", "sine=440:d=1"]
    run(*source, "-pix_fmt", "yuv420p", path)
    run("-i", path, "-c", "copy", path.with_suffix(".ts"))
    return path


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S" '
    'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
PLAYLISTS = {
    "a.m3u8": HLS, "b.mp4": HLS, "c.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "d.mp4": "ffconcat version 1.0\nfile {}\n", "e.mpd": DASH, "f.mp4": DASH, "g.m3u": "#EXTM3U\n{}\n",
    "h.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "i.avs": 'DirectShowSource("{}")\n', "j.pls": "[playlist]\nFile1={}\nNumberOfEntries=1\n",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PLAYLISTS))
def test_playlists_lead_nowhere(tmp_path, clip, name):
    for target in (clip.name, str(clip), str(clip.with_suffix(".ts")), clip.with_suffix(".ts").name):
        path = clip.with_name(name)
        path.write_text(PLAYLISTS[name].format(target))
        with pytest.raises(AudioError, match="not a media file"):
            audio.load_audio(path)
        for read in (video.probe, lambda p: list(video.read_video(p)), lambda p: list(frames_of(p)), samples_of):
            with pytest.raises(VideoError, match="not a video"):
                read(path)
        path.unlink()


def test_kinds_of_a_video():
    assert exit_code(VideoError("x")) == 12


def test_no_other_module_starts_ffmpeg():
    root = Path(sonic_ms.__file__).parent
    users = {
        p.relative_to(root).as_posix() for p in root.rglob("*.py") if "ffmpeg_exe" in p.read_text(encoding="utf-8")
    }
    assert users == {"media/ffmpeg.py"}


def test_a_decoder_has_a_limit_of_memory(clip):
    with ffmpeg.Decoder(clip, ["-map", "0:0", "-f", "rawvideo"], "video") as decoder:
        limits = Path(f"/proc/{decoder._process.pid}/limits").read_text()
    row = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert row.split()[3] == str(ffmpeg.MEMORY)


def test_too_little_memory_is_said():
    with pytest.raises(ResourceError, match="ran out of memory"):
        ffmpeg.blame_host("video a.mp4", 1, ["Error: Cannot allocate memory"])
    ffmpeg.blame_host("video a.mp4", 1, ["Invalid data found when processing input"])  # the file's own fault


def test_a_decoder_that_is_stuck_is_ended(tmp_path, clip, monkeypatch):
    import imageio_ffmpeg

    fake, real = tmp_path / "ffmpeg", ffmpeg.ffmpeg_exe()
    fake.write_text(f'#!/bin/sh\ncase "$*" in *pipe:1*) exec sleep 60;; *) exec {real} "$@";; esac\n')
    fake.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(fake))
    monkeypatch.setattr(ffmpeg, "STALL", 0.5)
    for read in (audio.load_audio, video.probe, lambda p: list(video.read_video(p))):
        with pytest.raises(ResourceError, match="gave nothing for"):
            read(clip)


def outcome(read, path):
    """ "ok", or the kind of a project error of one line; anything else is raised."""
    try:
        read(path)
        return "ok"
    except SonicError as error:
        assert "\n" not in str(error) and len(str(error)) < 600
        return type(error).__name__


def test_damaged_cut_and_odd_videos(tmp_path, clip, capfd):
    data, rng = clip.read_bytes(), random.Random(0)
    path = tmp_path / "a.mp4"
    cases = [data[:n] for n in (1, 8, 40, 600, len(data) // 2, len(data) - 900)]
    for _ in range(12):
        case = bytearray(data)
        for _ in range(rng.choice([1, 3, 30])):
            place = rng.randrange(len(case))
            case[place : place + rng.choice([1, 4, 60])] = rng.randbytes(rng.choice([1, 4, 60]))
        cases.append(bytes(case))
    kinds = set()
    for case in cases:
        path.write_bytes(case)
        for read in (video.probe, lambda p: list(video.read_video(p)), lambda p: list(frames_of(p)), samples_of):
            kinds.add(outcome(read, path))
        kinds.add(outcome(audio.load_audio, path))
    assert kinds <= {"ok", "VideoError", "AudioError", "ResourceError"} and {"VideoError", "AudioError"} <= kinds
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["wav", "cover.mp3", "png"])
def test_what_has_no_moving_picture(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    sound = ["-f", "lavfi", "-i", "sine=440:d=1"]
    picture = ["-f", "lavfi", "-i", "testsrc=size=64x64:d=0.04"]
    if kind == "wav":
        run(*sound, path)
    elif kind == "png":
        run(*picture, "-frames:v", 1, path)
    else:
        run(*sound, *picture, "-map", 0, "-map", 1, "-c:v", "png", "-disposition:v", "attached_pic", path)
        assert len(audio.load_audio(path)) == pytest.approx(16000, abs=1200)
    for read in (video.probe, lambda p: list(video.read_video(p))):
        with pytest.raises(VideoError, match="not a video"):
            read(path)


def test_a_frame_that_is_too_large_is_refused_with_its_size(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 4000)
    with pytest.raises(VideoError, match="64x64"):
        video.probe(clip)
    with pytest.raises(VideoError, match="64x64"):
        next(video.read_video(clip))


def test_every_frame_comes_once_whatever_its_stamp(tmp_path, clip):
    path = tmp_path / "gap.mkv"
    run("-i", clip, "-vf", "setpts=PTS+gte(N\\,10)*5/TB", "-fps_mode", "passthrough", "-an", path)
    assert len(list(video.read_video(path))) == 25 and video.probe(path).frames == 25
    assert all(np.asarray(frame).shape == (64, 64, 3) for frame in video.read_video(path))


def test_a_jump_of_stamps_does_not_fill_the_disk(tmp_path, clip, monkeypatch):
    from sonic_ms.data import decode

    path = tmp_path / "jump.mkv"
    run("-i", clip, "-vf", "setpts=PTS+gte(N\\,10)*500/TB", "-af", "asetpts=PTS+gte(T\\,0.5)*500/TB",
        "-fps_mode", "passthrough", path)  # fmt: skip
    monkeypatch.setattr(decode, "MAX_SECONDS", 10)
    with pytest.raises(VideoError, match="jump in its time stamps"):
        list(frames_of(path))
    assert len(samples_of(path)) <= 160000
