"""Workers as actors of a real Ray cluster of three nodes on this machine, whose chips are not there."""

import os
import time

import pytest

from sonic_ms.serve import actors
from sonic_ms.serve.remote import Remote
from tests.serve.conftest import client_of
from tests.support.fake_remote import FakeRemote
from tests.support.ray_cluster import add_node, cluster, node_of

pytestmark = [pytest.mark.slow, pytest.mark.needs("ray")]

CHIP = "Ascend310P3"


@pytest.fixture(scope="module")
def nodes():
    """The cluster and its nodes, two of which have a chip."""
    import ray

    with cluster() as made:
        chips = {"resources": {"NPU": 1}, "labels": {"soc": CHIP}}
        made.chips = [add_node(made, **chips), add_node(made, **chips)]
        actors.connect(made.address)
        yield made
        ray.shutdown()


@pytest.fixture(scope="module")
def client(nodes, tmp_path_factory):
    """A service with one slot, which the tests use one after the other; no process of it is left behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors, "Remote", FakeRemote)
        with client_of(tmp_path_factory.mktemp("ray") / "data", workers="ray", soc=CHIP, wait=300) as client:
            yield client
            pids = processes(client)
    until_gone(pids, 10)


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(actors, "Remote", FakeRemote)


def processes(client):
    """Ids of the actors' processes and of their workers'."""
    import ray

    hellos = [ray.get(slot.worker._actor.hello.remote()) for slot in client.service.slots.slots]
    return [one[name] for one in hellos for name in ("pid", "worker")]


def until_gone(pids, seconds):
    end = time.monotonic() + seconds
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < end, [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
        time.sleep(0.02)


def test_an_actor_makes_jobs(client):
    import ray

    name = client.make().json()["id"]
    assert client.until(name, "completed")["frames_done"] == 50
    assert client.get(f"/v1/videos/{name}/content").content == name.encode() * 100
    assert client.until(client.make(3).json()["id"], "failed")["error"]["code"] == "face_error"
    hello = ray.get(client.service.slots.slots[0].worker._actor.hello.remote())
    assert hello["chips"] in ("0", "1")


@pytest.mark.parametrize("seed", [4, 2])
def test_cancel_frees_a_nodes_processor_within_two_seconds(client, seed):
    """A job that can be cancelled and a process that hears neither that nor SIGTERM."""
    worker = processes(client)[1]
    name = client.make(seed).json()["id"]
    client.until(name, "in_progress")
    time.sleep(0.5)
    started = time.monotonic()
    client.post(f"/v1/videos/{name}/cancel")
    if seed == 2:
        until_gone([worker], 2)
    client.until(name, "canceled", timeout=started + (2 if seed == 4 else 4) - time.monotonic())
    client.until_ready(300)


def test_a_job_outlives_the_node_that_made_it(nodes, client):
    name = client.make(6).json()["id"]
    client.until(name, "in_progress")
    pids = processes(client)
    lost = node_of(nodes, pids[0])
    nodes.remove_node(lost, allow_graceful=False)
    nodes.chips.remove(lost)
    video = client.until(name, "completed", timeout=120)
    assert video["attempt"] == 1, "that a node is lost is not the job's fault"
    events = [event for _, event, _ in client.service.jobs.events(name)]
    assert events.count("completed") == 1
    files = list((client.service.settings.data / "tenants").glob(f"*/results/{name}*"))
    assert [one.stem for one in files] == [f"{name}-1"]
    until_gone(pids, 5)


def not_ready(folder, words, **settings):
    """The service says `words` at /readyz, and keeps its jobs in the queue."""
    with client_of(folder, workers="ray", wait=0, **settings) as client:
        name = client.make().json()["id"]
        end = time.monotonic() + 60
        while not (answer := client.get("/readyz").json()).get("error") or answer["error"]["code"] == "no_free_node":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert client.get("/readyz").status_code == 503 and answer["status"] == "broken"
        assert words in answer["error"]["message"] and "\n" not in answer["error"]["message"]
        assert client.get(f"/v1/videos/{name}").json()["state"] == "queued"


def test_a_chip_that_no_node_has(nodes, fake, tmp_path):
    not_ready(tmp_path, "no node of the cluster has the label soc=Ascend910B4", soc="Ascend910B4")


@pytest.fixture(scope="module")
def spare(nodes):
    """A node more: one was lost, and the other's processor is the first service's."""
    return add_node(nodes)


def test_a_node_with_another_version(spare, fake, tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "__version__", "9.9")
    not_ready(tmp_path, "and this server 9.9; install the same version on every node")


def test_a_node_without_the_weights(spare, tmp_path, monkeypatch):
    monkeypatch.setattr(actors, "Remote", Remote)  # the module's client has the one that pretends
    not_ready(tmp_path, "/nowhere/person.safetensors", delta="/nowhere/person.safetensors")
