"""What users of other services complained of in public, one test each: it is not so here."""

import os
import threading
import time

import pytest

from sonic_ms.serve import jobs as jobs_module
from tests.serve.test_http import events, upload
from tests.serve.test_webhooks import Receiver, webhook

pytestmark = [pytest.mark.slow]


def test_01_in_progress_is_said_only_of_what_runs_and_delete_stops_the_work(start):
    """vllm-omni#6403: in_progress while queued; DELETE leaves the chip computing."""
    with start(lanes=1) as client:
        first, second = client.make(2).json()["id"], client.make().json()["id"]
        client.until(first, "in_progress")
        waiting = client.get(f"/v1/videos/{second}").json()
        assert (waiting["status"], waiting["queue_position"], waiting["started_at"]) == ("queued", 0, None)
        worker = client.service.slots.slots[0].worker.process.pid
        client.delete(f"/v1/videos/{first}")
        started = time.monotonic()
        assert client.until(second, "in_progress", "completed", timeout=3)
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
        assert time.monotonic() - started < 3


def test_02_a_video_that_is_gone_is_not_called_completed(client):
    """vllm-omni#5422: file expired, job "completed", content 404."""
    name = client.make().json()["id"]
    client.until(name, "completed")
    client.service.janitor.tidy(time.time() + 8 * 86400)
    assert client.get(f"/v1/videos/{name}").json()["status"] == "failed"
    assert client.get(f"/v1/videos/{name}/content").status_code == 410
    assert [one["state"] for one in client.get("/v1/videos").json()["data"]] == ["expired"]


def test_03_a_job_is_known_before_it_can_be_done(client):
    """TensorRT-LLM PR#13635: a job done before its row exists stays queued for ever."""
    for _ in range(20):
        name = client.make().json()["id"]
        assert client.get(f"/v1/videos/{name}").status_code == 200
        client.until(name, "completed", timeout=5)


def test_04_a_webhook_that_is_down_holds_nothing_up(start):
    """cog#2229: webhook down, BUSY for ever, cancel fails."""
    with start(private_webhooks=True, lanes=1) as client:
        dead = client.make(webhook_url="http://127.0.0.1:9/").json()["id"]
        client.until(dead, "completed")
        running = client.make(4, webhook_url="http://127.0.0.1:9/").json()["id"]
        client.until(running, "in_progress")
        assert client.post(f"/v1/videos/{running}/cancel").status_code == 202
        client.until(running, "canceled", timeout=3)
        assert client.until(client.make().json()["id"], "completed")


def test_05_a_redirect_of_a_webhook_is_told_and_tried_again(start, monkeypatch):
    """replicate-javascript#195: a 301 loses the webhook silently."""
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)
    with Receiver(301) as receiver, start(private_webhooks=True, webhook_pauses=(0.05,)) as client:
        found = webhook(client, client.make(webhook_url=receiver.url).json()["id"], "given_up")
        assert (found["attempts"], found["last"]) == (2, "answered 301, which is not followed")


def test_06_a_closed_tab_loses_nothing(client):
    """gradio#8708, #6471, #2075: tab closed or phone asleep loses job or result."""
    name = client.make(6).json()["id"]
    with client.stream("GET", f"/v1/videos/{name}/events") as answer:
        next(answer.iter_bytes())
    assert client.until(name, "completed")
    assert [one["id"] for one in client.get("/v1/videos").json()["data"]] == [name]
    assert events(client, name)[-1][1] == "completed"


def test_07_nobody_skips_the_queue(start):
    """gradio#6350: calls over REST skip the queue."""
    with start(lanes=1) as client:
        names = [client.make(6).json()["id"], client.make(30).json()["id"]]
        files = {"input_reference": b"i", "audio_reference": b"a"}
        sync = threading.Thread(target=lambda: client.post("/v1/videos/sync", files=files, data={"seed": "31"}))
        sync.start()
        sync.join()
        found = client.get("/v1/videos?order=asc").json()["data"]
        assert [one["id"] for one in found][:2] == names
        ended = [one.completed_at for one in client.service.jobs.page("local", 9, order="asc")[0]]
        assert None not in ended and ended == sorted(ended)


def test_08_no_temporary_files_stay_and_nobody_else_reads_them(client):
    """gradio#4620, #3950: 24 GB of temporary files, others' files readable."""
    names = [client.make(seed).json()["id"] for seed in (0, 3, 7, 8)]
    for name in names:
        client.until(name, "completed", "failed")
    folders = client.service.folders
    end = time.monotonic() + 3
    while list((folders.data / "work").iterdir()):
        assert time.monotonic() < end
        time.sleep(0.02)
    for name in names:
        client.delete(f"/v1/videos/{name}")
    assert not list(folders.data.glob("tenants/*/*/*"))
    for folder, _, _ in os.walk(folders.data):
        assert os.stat(folder).st_mode & 0o077 == 0


def test_09_nobody_gets_the_video_of_another(client):
    """Wav2Lip#174, xtts-api-server#59: another user's result, by fixed names."""
    names = [client.make(seed).json()["id"] for seed in range(40, 50)]
    for name in names:
        client.until(name, "completed")
        assert client.get(f"/v1/videos/{name}/content").content == name.encode() * 100


def test_10_cancel_ends_the_job_it_names(client):
    """ComfyUI#2566, #7513: cancel kills the wrong job."""
    one, other, third = (client.make(seed).json()["id"] for seed in (6, 4, 0))
    client.until(other, "in_progress")
    client.post(f"/v1/videos/{other}/cancel")
    states = {name: client.until(name, "completed", "canceled")["state"] for name in (one, other, third)}
    assert states == {one: "completed", other: "canceled", third: "completed"}
    assert client.post(f"/v1/videos/{one}/cancel").status_code == 409


def test_11_an_unknown_id_is_unknown_after_a_restart_too(start):
    """comfyui-mcp#2507: an unknown id after a restart is "done"."""
    with start() as client:
        name = client.make().json()["id"]
        client.until(name, "completed")
    with start() as client:
        assert client.get("/v1/videos/video_" + "0" * 32).status_code == 404
        assert client.get(f"/v1/videos/{name}").json()["state"] == "completed"


def test_12_closed_streams_cost_nothing(client):
    """LiveTalking PR#616: closed sessions burn three cores."""
    name = client.make(4).json()["id"]
    for _ in range(5):
        with client.stream("GET", f"/v1/videos/{name}/events") as answer:
            next(answer.iter_bytes())
    client.post(f"/v1/videos/{name}/cancel")
    client.until(name, "canceled")
    end = time.monotonic() + 3
    while client.service.hub._waiting:
        assert time.monotonic() < end
        time.sleep(0.02)
    before, started = time.process_time(), time.monotonic()
    time.sleep(1)
    assert (time.process_time() - before) / (time.monotonic() - started) < 0.2


def test_13_no_more_videos_at_once_than_there_is_room_for(start):
    """LiveTalking#570: parallel jobs delay each other."""
    with start(lanes=2) as client:
        names = [client.make(4).json()["id"] for _ in range(4)]
        client.until(names[1], "in_progress")
        time.sleep(0.5)
        states = [client.get(f"/v1/videos/{name}").json()["state"] for name in names]
        assert states == ["in_progress", "in_progress", "queued", "queued"]
        for name in names:
            client.delete(f"/v1/videos/{name}")


def test_14_a_busy_server_says_when_and_not_come_again(start):
    """Duix-Avatar#342, #552: timeout, retry, "busy"."""
    with start(lanes=1) as client:
        client.make(4)
        for position in range(5):
            answer = client.make()
            assert (answer.status_code, answer.json()["queue_position"]) == (202, position)
        for one in client.get("/v1/videos").json()["data"]:
            client.delete(f"/v1/videos/{one['id']}")


def test_15_there_is_no_limit_of_time_for_a_job(start, monkeypatch):
    """SadTalker PR#297: a limit of 60 s. Here a job outlives its lease several times, because that is renewed."""
    for module in (jobs_module, __import__("sonic_ms.serve.slots", fromlist=["x"])):
        monkeypatch.setattr(module, "LEASE", 0.6)
    with start() as client:
        name = client.make(6).json()["id"]  # two seconds
        while client.get(f"/v1/videos/{name}").json()["state"] != "completed":
            client.service.jobs.take_back()
            time.sleep(0.1)
        assert client.get(f"/v1/videos/{name}").json()["attempt"] == 1


def test_16_a_thousand_jobs_are_taken_and_there_tomorrow(start):
    """new-api#3044: submit 1000, collect tomorrow."""
    with start(lanes=1) as client:
        stuck = client.make(4).json()["id"]
        image, audio = upload(client)["id"], upload(client, "audio", b"audio")["id"]
        for number in range(999):
            client.service.jobs.add("local", "sonic-edge", {"seed": 100}, image, audio,
                                    {"names": ["a", "b"], "metadata": {"n": str(number)}})  # fmt: skip
        client.post(f"/v1/videos/{stuck}/cancel")
    with start(lanes=1) as client:
        seen, after = [], {}
        while True:
            page = client.get("/v1/videos", params={"limit": 100, **after}).json()
            seen += [one["id"] for one in page["data"]]
            after = {"after": page["last_id"]}
            if not page["has_more"]:
                break
        assert len(seen) == len(set(seen)) == 1000
        assert client.get(f"/v1/videos/{seen[0]}").json()["metadata"] == {"n": "998"}
        client.until(seen[-2], "completed", timeout=5)


def test_17_safari_gets_its_206(client):
    """misskey#12881: Safari asks for bytes=0-1 first and plays nothing without a 206."""
    name = client.make().json()["id"]
    client.until(name, "completed")
    answer = client.get(f"/v1/videos/{name}/content", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, len(answer.content), answer.headers["content-type"]) == (206, 2, "video/mp4")


def test_18_requests_that_were_saved_go_on_working(client):
    """ComfyUI_Sonic#83, #49: inputs changed, saved workflows fail. Names of Sonic's users, and of the first version."""
    saved = {"duration": "2", "resolution": "256", "dynamic_scale": "1.0", "keep_resolution": "false", "seed": "5",
             "expand_ratio": "0.5", "lip_sync_refinement": "true", "temporal_smoothing": "false", "align_offset": "0",
             "motion_scale": "1.0", "face": "largest", "watermark": "true", "min_resolution": "256"}  # fmt: skip
    answer = client.make(**saved)
    assert answer.status_code == 202, answer.text
    assert answer.json()["options"]["min_resolution"] == 256
