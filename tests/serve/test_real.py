"""The real program with its real worker, as its users meet it."""

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from sonic_ms.cli import main
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.labels.show import look
from sonic_ms.media.video import probe
from sonic_ms.serve.confine import NICE
from sonic_ms.serve.run import listen
from tests.serve.conftest import Server
from tests.test_cli import bad_image, wav

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def sdk(server):
    with openai.OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


def test_the_openai_sdk_makes_a_video(server, sdk, tmp_path):
    sound = server.http.post("/v1/uploads", files={"file": DEMO_AUDIO.open("rb")}, data={"kind": "audio"}).json()["id"]
    video = sdk.videos.create_and_poll(
        prompt="speak", input_reference=DEMO_IMAGE, seconds="2", poll_interval_ms=100,
        extra_body={"audio_reference": sound, "min_resolution": "128", "model": "sonic-edge"},
    )  # fmt: skip
    assert (video.status, video.progress, video.size, video.error) == ("completed", 100, "128x128", None)
    sdk.videos.download_content(video.id).write_to_file(tmp_path / "talk.mp4")
    info = probe(tmp_path / "talk.mp4")
    assert (info.frames, info.width, info.video_codec, info.audio_codec) == (50, 128, "h264", "aac")
    labels = look(tmp_path / "talk.mp4")
    assert "AI" in str(labels) and sdk.videos.retrieve(video.id).labels["visible"] == "en"
    assert video.id in [one.id for one in sdk.videos.list(limit=2)]
    assert sdk.models.list().data[0].id == "sonic-edge"
    assert sdk.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.videos.retrieve(video.id)
    assert caught.value.code == "not_found" and video.id in str(caught.value)


def test_the_openai_sdk_reads_our_errors(sdk):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sdk.videos.create(prompt="x", input_reference=b"x", extra_body={"min_resolution": "1"})
    assert (caught.value.code, caught.value.param) == ("input_missing_error", "audio_reference")


@pytest.mark.parametrize("kind", ["text", "truncated", "tiny", "bomb", "no face"])
def test_a_bad_image_is_refused_with_the_command_lines_sentence(server, tmp_path, capsys, kind):
    image = bad_image(tmp_path, kind)
    same_sentence(server, capsys, tmp_path, image, DEMO_AUDIO)


@pytest.mark.parametrize("kind", ["short", "corrupt", "picture", "playlist"])
def test_a_bad_recording_is_refused_with_the_command_lines_sentence(server, tmp_path, capsys, kind):
    path = tmp_path / "bad.wav"
    if kind == "short":
        wav(path, 0.2, 0.1)
    elif kind == "corrupt":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "picture":
        Image.new("RGB", (64, 64)).save(path, "PNG")
    else:
        path.write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{DEMO_AUDIO}\n")
    same_sentence(server, capsys, tmp_path, DEMO_IMAGE, path)


def same_sentence(server, capsys, tmp_path, image, audio):
    before = server.http.get("/v1/videos").json()["data"]
    files = {"input_reference": image.open("rb"), "audio_reference": audio.open("rb")}
    answer = server.http.post("/v1/videos", files=files)
    code = main(["generate", "--image", str(image), "--audio", str(audio), "--output", str(tmp_path / "o.mp4")])
    said = capsys.readouterr().err.strip().splitlines()[-1].removeprefix("sonic-ms: ")
    for path in (image, audio):
        said = said.replace(str(path), path.name)
    assert code in (4, 5, 6) and answer.status_code == 422
    assert answer.json()["detail"] == said
    assert server.http.get("/v1/videos").json()["data"] == before


def test_two_videos_at_once_are_each_ones_own(server, tmp_path):
    names = [server.make(seed=str(seed), min_resolution=str(size)) for seed, size in ((20, 64), (21, 96))]
    for name, size in zip(names, (64, 96), strict=True):
        assert server.until(name, "completed")["size"] == f"{size}x{size}"
    again = server.make(seed="20", min_resolution="64")
    hashes = [server.until(name, "completed")["sha256"] for name in (names[0], again)]
    assert hashes[0] == hashes[1]


@pytest.mark.needs("unshare")
def test_the_worker_has_no_network_and_limits(server):
    server.wait_ready()  # it has confined itself before that
    (worker,) = server.workers()
    mine, its = (os.readlink(f"/proc/{pid}/ns/net") for pid in (server.process.pid, worker))
    limits = Path(f"/proc/{worker}/limits").read_text()
    assert "Max core file size        0 " in limits and f"Max file size             {8 << 30}" in limits
    assert mine != its


def test_an_answer_leaves_at_once_and_before_the_workers_frames(server):
    """A server's socket that does not say it is TCP has its answers held back for 40 ms, and workers go second."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        assert listening.accept()[0].proto == socket.IPPROTO_TCP
    server.wait_ready()
    (worker,) = server.workers()
    first, second = (os.getpriority(os.PRIO_PROCESS, pid) for pid in (server.process.pid, worker))
    assert second == first + NICE


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_killed_workers_and_servers_lose_nothing(tmp_path):
    """bench/serve_kills.py does the same two hundred times."""
    server = Server(tmp_path / "data", "--engine", "onnxruntime").start()
    try:
        started = time.monotonic()
        names = [server.make(seed=str(seed), duration="2") for seed in range(3)]
        assert time.monotonic() - started < 3  # each accepted at once, though there is no model yet
        assert server.http.get("/readyz").json()["status"] == "loading"
        server.wait_ready()
        server.until(names[0], "in_progress", "completed")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        server.until(names[0], "completed")
        (worker,) = server.workers()
        server.end(signal.SIGKILL)
        end = time.monotonic() + 5
        while not gone(worker):
            assert time.monotonic() < end, "the worker outlives its server"
            time.sleep(0.05)
        server.start().wait_ready()
        videos = [server.until(name, "completed", "failed") for name in names]
        for video in videos:
            if video["state"] == "completed":
                content = server.http.get(f"/v1/videos/{video['id']}/content").content
                assert len(content) == video["bytes"]
            else:
                assert "2 times" in video["error"]["message"]
        assert videos[0]["state"] == "completed"
        assert list((tmp_path / "data" / "work").iterdir()) == []
        results = [path.name for path in (tmp_path / "data").glob("tenants/*/results/*")]
        assert len(results) == sum(video["state"] == "completed" for video in videos)
    finally:
        server.end()


def test_the_first_job_is_accepted_while_the_model_loads(tmp_path):
    server = Server(tmp_path / "data", "--engine", "onnxruntime").start()
    try:
        started = time.monotonic()
        name = server.make()
        assert time.monotonic() - started <= 1
        video = server.http.get(f"/v1/videos/{name}").json()
        assert (video["state"], video["queue_position"]) == ("queued", 0)
        server.end(signal.SIGTERM)
        assert server.process.returncode == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(server.url)
    finally:
        server.end()
