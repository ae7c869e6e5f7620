"""`sonic-ms data lips`: mouths measured on videos of which it is known what they do."""

import json

import numpy as np
import pytest

from sonic_ms.cli import main
from sonic_ms.data import lips
from sonic_ms.data.mouths import load_clips
from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.generator import open_folder
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.face import mesh
from sonic_ms.files.shipped import DEMO_IMAGE
from sonic_ms.pipeline import load_model
from tests.data.conftest import remaker
from tests.support.talking_clip import talking_clip

pytestmark = [pytest.mark.slow]


def turned(points, yaw, scale, shift):
    c, s = np.cos(yaw), np.sin(yaw)
    return scale * points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + shift


def test_a_turning_nearing_head_opens_no_mouth():
    face = mesh.average_face((0, 0, 200, 260)).astype(np.float64) / (1, 1, mesh.MESH_DEPTH)
    rng = np.random.default_rng(0)
    meshes = np.array([
        turned(face * (1, 1, mesh.MESH_DEPTH), yaw, scale, rng.normal(0, 20, 3)) / (1, 1, mesh.MESH_DEPTH)
        for yaw, scale in zip(np.linspace(-0.3, 0.3, 30), np.linspace(0.8, 1.3, 30))
    ])  # fmt: skip
    measures = lips.measure(meshes)
    assert all(np.ptp(values) < 1e-3 for values in measures.values())
    assert measures["width"].mean() == pytest.approx(
        np.linalg.norm(face[61, :2] - face[291, :2]) / mesh.face_height(face), rel=0.1
    )


def test_an_opening_is_measured_in_face_heights():
    face = mesh.average_face((0, 0, 200, 260)).astype(np.float64)
    meshes = np.repeat(face[None], 20, 0)
    drop = np.linspace(0, 20, 20)
    for index in (87, 14, 317, mesh.CHIN):
        meshes[:, index, 1] += drop
    measures = lips.measure(meshes)
    height = 260 + drop.mean()
    assert np.ptp(measures["opening"]) == pytest.approx(20 / height, rel=0.05)
    assert np.ptp(measures["jaw"]) == pytest.approx(20 / height, rel=0.05)


@pytest.mark.parametrize("late", [-4, 0, 6])
def test_the_offset_is_found(late):
    rng = np.random.default_rng(1)
    heard = np.convolve(rng.random(200), np.ones(3) / 3, "same")
    seen = np.roll(heard, late) + 0.05 * rng.random(200)
    offset, match, far = lips.find_offset(seen, heard)
    assert offset == late and match > 0.8 > far + 0.4


@pytest.fixture(scope="module")
def folder(speech, tmp_path_factory):
    """Videos of sonic-edge: one in step, one whose sound comes 0.2 s late, one without sound, one of noise, one of
    another voice."""
    videos = tmp_path_factory.mktemp("videos")
    remake = remaker(talking_clip(tmp_path_factory.mktemp("talk") / "talk.mp4", load_model(), DEMO_IMAGE, speech))
    shifted = np.concatenate([np.zeros(3200, np.float32), speech])[: len(speech)]
    remake(videos / "fine.mp4")
    remake(videos / "late.mp4", sound=shifted)
    remake(videos / "mute.mp4", sound=np.zeros(0, np.float32))
    remake(videos / "other.mp4", sound=speech[::-1].copy())
    (videos / "broken.mp4").write_bytes(b"no video")
    return videos


def test_videos_become_clips_and_the_others_say_why(folder, speech, tmp_path, capsys):
    assert main(["data", "lips", str(folder), "--out", str(tmp_path / "out"), "--lang", "en"]) == 0
    said = capsys.readouterr()
    assert "2 clips, 10 s; 3 pieces left out" in said.out
    clips = {clip.name: clip for clip in load_clips(tmp_path / "out")}
    assert set(clips) == {"fine", "late"}
    assert abs(clips["fine"].offset) <= 1
    assert clips["late"].offset == pytest.approx(clips["fine"].offset - 5, abs=1)  # the picture leads
    assert clips["fine"].speaker == "fine" and clips["fine"].lang == "en"
    reasons = {one["name"]: one["reason"] for one in json.loads((tmp_path / "out" / "index.json").read_text())}
    assert reasons["mute"] == "no sound" and "does not follow this sound" in reasons["other"]
    assert "not a video" in reasons["broken"]
    shown = open_folder().curves(speech, EdgeOptions(dynamic_scale=1.3))[0][:, OPEN]
    seen = clips["fine"].heard("opening")[:, 0]
    good = np.isfinite(seen)
    assert np.corrcoef(np.maximum(shown[good], 0), seen[good])[0, 1] > 0.9


def test_nothing_that_can_be_used(folder, tmp_path, capsys):
    assert main(["data", "lips", str(folder / "mute.mp4"), "--out", str(tmp_path / "out")]) == 2
    assert "none of 1 pieces of 1 videos can be used: no sound" in capsys.readouterr().err


def test_no_videos(tmp_path, capsys):
    assert main(["data", "lips", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "holds no video" in capsys.readouterr().err
