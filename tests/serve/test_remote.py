"""What runs on another machine: it gets a job's files out of the store, and puts the video there."""

import io
import os
import time

import pytest

from sonic_ms.serve import process, remote
from sonic_ms.serve.files import LocalFiles, result_key, upload_key
from sonic_ms.serve.jobs import Job
from tests.serve.conftest import FAKE


@pytest.fixture
def files(tmp_path):
    files = LocalFiles(tmp_path / "store")
    for name in ("image", "audio"):
        files.put(upload_key("t", name), io.BytesIO(b"content"))
    return files


@pytest.fixture
def far(files, monkeypatch):
    monkeypatch.setattr(process, "WORKER", FAKE)
    far = remote.Remote("{}", files.address, 1)
    yield far
    far.end()


def job(seed=0, image="image"):
    return Job("video_1", "t", "in_progress", "sonic-edge", {"seed": seed}, image, "audio", {}, 0.0, attempt=1)


def make(far, one):
    far.order({"do": "make", "of": one, "options": one.options, "names": ["a.jpg", "a.wav"]})


def until(far, kind):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for message in far.listen(0.1):
            if message["is"] == kind:
                return message
    raise AssertionError(f"never {kind}")


def test_the_video_is_in_the_store_when_it_is_said_to_be_done(far, files):
    assert until(far, "ready")["engine"] == {"engine": "none"}
    make(far, job())
    done = until(far, "done")
    assert (done["job"], done["file"], done["frames"]) == ("video_1", "video_1-1.mp4", 50)
    assert files.size(result_key("t", "video_1-1.mp4")) == done["bytes"]


def test_files_that_are_gone_fail_the_job_alone(far):
    make(far, job(image="gone"))
    assert until(far, "failed")["code"] == "input_gone"
    make(far, job())
    assert until(far, "done")["job"] == "video_1"


def test_a_look_at_files_of_the_store(far):
    keys = [upload_key("t", name) for name in ("image", "audio")]
    far.order({"do": "look", "look": "n1", "keys": keys, "names": ["a", "b"], "options": {}})
    found = until(far, "looked")
    assert (found["look"], found["frames"]) == ("n1", 50)


def test_cancel_reaches_the_process(far):
    make(far, job(4))
    until(far, "progress")
    far.order({"do": "cancel", "job": "video_1"})
    assert until(far, "failed")["code"] == "canceled"


def test_the_end_of_the_process_is_told(far):
    make(far, job(1))
    assert "SIGKILL" in until(far, "ended")["how"]


def test_without_questions_it_ends_itself(files, monkeypatch):
    monkeypatch.setattr(process, "WORKER", FAKE)
    monkeypatch.setattr(remote, "SILENCE", 0.5)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    far = remote.Remote("{}", files.address, 1)
    end = time.monotonic() + 30
    while not ended:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert far._worker.process.poll() is not None
