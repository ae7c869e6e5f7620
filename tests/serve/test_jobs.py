"""What becomes of a job: made, failed, cancelled, taken back, and who is next."""

import os
import time

import pytest

from sonic_ms.serve.database import open_database
from sonic_ms.serve.jobs import Jobs


@pytest.fixture
def jobs(tmp_path, place):
    database = open_database(place.get("database"), tmp_path)
    yield Jobs(database)
    database.close()


@pytest.fixture
def start(start, place):
    return lambda **settings: start(**place, **settings)


def add(jobs, tenant="a", **extra):
    return jobs.add(tenant, "sonic-edge", {}, "upl_i", "upl_a", extra)


def test_a_job_is_made(client):
    answer = client.make()
    assert answer.status_code == 202 and answer.json()["state"] == "queued"
    name = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/videos/{name}"
    video = client.until(name, "completed")
    assert (video["status"], video["progress"], video["frames_done"], video["size"]) == ("completed", 100, 50, "64x64")
    assert client.get(f"/v1/videos/{name}/content").content == name.encode() * 100


def test_a_failure_is_the_jobs_own(client):
    video = client.until(client.make(3).json()["id"], "failed")
    assert (video["error"]["code"], video["attempt"]) == ("face_error", 1)
    assert client.until(client.make().json()["id"], "completed")


@pytest.mark.parametrize(("seed", "words"), [(1, "SIGKILL"), (5, "no face found")])
def test_two_attempts_then_failed_with_a_reason(client, seed, words):
    video = client.until(client.make(seed).json()["id"], "failed", "completed", timeout=30)
    assert (video["state"], video["attempt"]) == ("failed", 2)
    assert words in video["error"]["message"] and "2 times" in video["error"]["message"]
    assert client.until(client.make().json()["id"], "completed", timeout=30)


@pytest.mark.parametrize("seed", [4, 2])
def test_cancel_frees_the_processor_within_two_seconds(client, seed):
    """A job that can be cancelled and a process that hears neither that nor SIGTERM."""
    name = client.make(seed).json()["id"]
    while client.until(name, "in_progress")["stage"] != "frames":  # its worker has it
        time.sleep(0.02)
    worker = client.service.slots.slots[0].worker.process.pid
    started = time.monotonic()
    assert client.post(f"/v1/videos/{name}/cancel").status_code in (200, 202)
    video = client.until(name, "canceled", timeout=2.5)
    assert time.monotonic() - started <= 2
    assert (video["status"], video["error"]["code"]) == ("failed", "canceled")
    if seed == 2:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    else:  # a job that listens costs the others nothing: the model stays warm
        assert client.service.slots.slots[0].worker.process.pid == worker
    assert list((client.service.folders.data / "work").iterdir()) == []
    assert client.until(client.make().json()["id"], "completed")


def test_a_neighbour_of_a_cancelled_job_is_made_again(client):
    stuck, other = client.make(2).json()["id"], client.make(6).json()["id"]
    client.until(other, "in_progress")
    client.post(f"/v1/videos/{stuck}/cancel")
    video = client.until(other, "completed")
    assert video["attempt"] == 1  # what ended it was not its own doing


def test_a_queued_job_is_cancelled_at_once(start):
    with start(lanes=1) as client:
        running, waiting = client.make(4).json()["id"], client.make().json()["id"]
        client.until(running, "in_progress")
        answer = client.post(f"/v1/videos/{waiting}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "canceled")
        client.post(f"/v1/videos/{running}/cancel")


def test_delete_of_a_running_job(client):
    name = client.make(4).json()["id"]
    client.until(name, "in_progress")
    assert client.delete(f"/v1/videos/{name}").json() == {"id": name, "object": "video.deleted", "deleted": True}
    assert client.get(f"/v1/videos/{name}").status_code == 404
    end = time.monotonic() + 3
    while client.service.database.row("SELECT 1 FROM jobs") or list(client.service.files.stored()):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list((client.service.folders.data / "work").iterdir()) == []


def test_nothing_is_lost_when_the_server_ends(start):
    with start(lanes=1) as client:
        names = [client.make(6).json()["id"] for _ in range(3)]
        client.until(names[0], "in_progress")
    with start() as client:
        for name in names:
            assert client.until(name, "completed")["attempt"] == 1
        content = [client.get(f"/v1/videos/{name}/content").content for name in names]
        assert content == [name.encode() * 100 for name in names]


def test_a_claim_that_is_not_renewed_goes_back(jobs):
    add(jobs)
    lost = jobs.claim("server 1")
    assert jobs.take_back() == 0
    with jobs.database.transaction() as connection:
        connection.execute("UPDATE jobs SET lease_until = 1")
    assert jobs.take_back() == 1
    again = jobs.claim("server 2")
    assert (again.id, again.attempt) == (lost.id, 2)
    assert not jobs.finish(lost, "completed", {"file": "late"})  # the first server was only slow
    assert jobs.get("a", lost.id).state == "in_progress"
    assert jobs.finish(again, "completed", {"file": "right", "bytes": 1, "frames": 1, "fps": 25})
    assert jobs.get("a", lost.id).result["file"] == "right"


def test_a_second_attempt_is_alone(client):
    """A job that kills its process twice takes nobody with it the second time."""
    bad, good = client.make(1).json()["id"], client.make(6).json()["id"]
    assert client.until(bad, "failed", "completed", timeout=30)["state"] == "failed"
    assert client.until(good, "completed", "failed", timeout=30)["state"] == "completed"


def test_a_second_attempt_waits_until_it_can_be_alone(jobs):
    first = add(jobs)
    jobs.give_back(jobs.claim("s"), "its process ended")
    add(jobs)
    assert jobs.claim("s", busy=True) is None  # nor does a later job pass it: it would never get its turn
    assert jobs.claim("s").id == first.id
    assert jobs.claim("s", busy=True).attempt == 1


def test_a_tenant_with_one_job_starts_next(jobs):
    for _ in range(100):
        add(jobs, "many")
    jobs.claim("s")
    add(jobs, "one")
    assert jobs.position(jobs.page("one", 1)[0][0]) == 0
    assert jobs.claim("s").tenant == "one"
    assert jobs.claim("s").tenant == "many"


def test_tenants_take_turns_and_positions_tell_it(jobs):
    """Each job says how many start before it; then they start, and it was so."""
    for tenant in "aaaabbc":
        add(jobs, tenant)
    all_of = [job for tenant in "abc" for job in jobs.page(tenant, 10, order="asc")[0]]
    told = {job.id: jobs.position(job) for job in all_of}
    started = []
    while job := jobs.claim("s"):
        started.append(job)
        jobs.finish(job, "completed", {"frames": 1, "fps": 25})
    assert [told[job.id] for job in started] == list(range(7))
    assert [job.tenant for job in started] == list("abcabaa")


def test_eta_follows_the_speed_that_was_measured(jobs):
    first = add(jobs, frames=100)
    assert jobs.eta(first) is None
    job = jobs.claim("s")
    jobs.progress(job, "frames", 100, 100)
    jobs.finish(job, "completed", {"work_seconds": 20.0, "frames": 100, "fps": 25})
    running = add(jobs, frames=50)
    waiting = add(jobs, frames=200)
    running = jobs.claim("s")
    jobs.progress(running, "frames", 25, 50)
    assert jobs.eta(jobs.get("a", running.id)) == 5.0  # 25 frames at 0.2 s
    assert jobs.eta(jobs.get("a", waiting.id)) == 45.0
