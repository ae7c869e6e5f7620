"""Live sessions of the service: whose they are, how many, and that nothing of them stays."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from starlette.websockets import WebSocketDisconnect

from sonic_ms.live.protocol import unpack
from sonic_ms.serve import live_sessions
from sonic_ms.serve.access import foreign
from sonic_ms.serve.settings import Settings

pytestmark = [pytest.mark.slow]

SOUND = (np.random.default_rng(0).normal(0, 3000, 16000)).astype("<i2").tobytes()  # 1 s
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def plain_worker(monkeypatch):
    worker = (sys.executable, "-m", "tests.serve.fake_live_worker")
    monkeypatch.setattr(live_sessions, "WORKER", worker)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def photo(client, headers=None, data=b"image"):
    """Id of an upload."""
    answer = client.post("/v1/uploads", data={"kind": "image"}, files={"file": ("me.jpg", data)}, headers=headers)
    return answer.json()["id"]


@contextlib.contextmanager
def session(client, headers=None, **first):
    with client.websocket_connect("/v1/live", headers={"host": "localhost"} | (headers or {})) as socket:
        socket.send_text(json.dumps(first))
        yield socket


def refusal(client, headers=None, **first):
    """(kind, code of the end) of a session that is refused."""
    with session(client, headers, **first) as socket:
        said = socket.receive_json()
        assert said["type"] == "error" and "\n" not in said["message"]
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_json()
        return said["kind"], ended.value.code


def processes():
    """Ids of the live sessions' processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"fake_live_worker" in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_sound_goes_in_and_frames_come_out(client):
    with session(client, image=photo(client), look_ahead=0.04) as socket:
        hello = socket.receive_json()
        assert hello["type"] == "hello" and hello["look_ahead"] == 0.04 and "sonic_ms" in hello["AIGC"]
        socket.send_bytes(SOUND)
        socket.send_text('{"type": "end"}')
        heard = b""
        while True:
            message = socket.receive()
            if (data := message.get("bytes")) is None:
                break
            _, position, sound, _ = unpack(data)
            heard += sound.tobytes() if position is not None else b""
        assert json.loads(message["text"])["type"] == "end" and heard == SOUND
    until(lambda: not processes())


def test_a_tab_that_is_closed_frees_the_processor_within_two_seconds(client):
    with session(client, image=photo(client)) as socket:
        assert socket.receive_json()["type"] == "hello"
        assert len(processes()) == 1 and client.service.live.count() == 1
        time.sleep(1.5)  # frames wait for a tab that does not read
    until(lambda: not processes() and not client.service.live.count(), seconds=2.0)
    assert not list(client.service.folders.data.glob("work/*"))
    assert not list(Path("/proc/self/fd").glob("*/socket"))


def test_what_was_spoken_counts_as_the_tenants_use(two_tenants):
    client, a, b = two_tenants
    with session(client, a, image=photo(client, a)) as socket:
        socket.receive_json()
        time.sleep(0.3)
    until(lambda: client.get("/v1/usage", headers=a).json()["data"])
    (day,) = client.get("/v1/usage", headers=a).json()["data"]
    assert day["jobs"] == 1 and day["video_seconds"] >= 0.3
    assert not client.get("/v1/usage", headers=b).json()["data"]
    lines = client.get("/v1/audit", headers=a).json()["data"]
    assert [line["action"] for line in lines if "live" in line["action"]] == ["live.started", "live.ended"]


def test_another_tenants_photo_is_not_there(two_tenants):
    client, a, b = two_tenants
    assert refusal(client, b, image=photo(client, a)) == ("not_found", 1008)


def test_a_browser_sends_its_key_in_the_first_message(two_tenants):
    client, a, _ = two_tenants
    key = a["Authorization"].removeprefix("Bearer ")
    with session(client, image=photo(client, a), key=key) as socket:
        assert socket.receive_json()["type"] == "hello"
    assert refusal(client, image="upl_x", key="sk-sonic-wrong") == ("invalid_api_key", 1008)
    assert refusal(client, image="upl_x") == ("invalid_api_key", 1008)


def test_a_session_counts_as_a_job_that_runs(start, tmp_path):
    from sonic_ms.serve.database import Database
    from sonic_ms.serve.files import Folders
    from sonic_ms.serve.tenants import Tenants

    folder = tmp_path / "data"
    database = Database(Folders(folder).data)
    key = Tenants(database).add_key("a", limits={"queued": 1})
    database.close()
    headers = {"Authorization": f"Bearer {key}"}
    with start(folder, local=False, live_sessions=2) as client:
        upload = photo(client, headers)
        with session(client, headers, image=upload) as socket:
            socket.receive_json()
            assert refusal(client, headers, image=upload) == ("too_many_jobs", 1008)
            assert client.make(headers=headers).status_code == 429
        until(lambda: not client.service.live.count())
        with session(client, headers, image=upload) as socket:
            assert socket.receive_json()["type"] == "hello"


def test_a_key_that_may_not_create_and_one_that_asks_too_often(start, tmp_path):
    from sonic_ms.serve.database import Database
    from sonic_ms.serve.files import Folders
    from sonic_ms.serve.tenants import Tenants

    folder = tmp_path / "data"
    database = Database(Folders(folder).data)
    tenants = Tenants(database)
    reader = tenants.add_key("reader", scopes=("read",))
    hasty = tenants.add_key("hasty", limits={"requests_a_minute": 2})
    database.close()
    with start(folder, local=False) as client:
        assert refusal(client, image="upl_x", key=reader) == ("missing_scope", 1008)
        kinds = [refusal(client, image="upl_x", key=hasty)[0] for _ in range(4)]
    # a minute may end in between, once
    assert kinds[0] == "not_found" and "too_many_requests" in kinds[2:], kinds


def test_one_session_too_many_is_refused(client):
    upload = photo(client)
    with session(client, image=upload) as socket:
        socket.receive_json()
        assert refusal(client, image=upload) == ("busy", 1011)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        ({"way": "telepathy"}, "usage_error"),
        ({"options": 3}, "usage_error"),
        ({"options": {"no_such": 1}}, "usage_error"),
        ({"options": {"dynamic_scale": "x"}}, "usage_error"),
        ({"rate": "fast"}, "usage_error"),
        ({"microphone": 1}, "usage_error"),
        ({"image": "upl_unknown"}, "not_found"),
        ({"image": None}, "not_found"),
    ],
)
def test_a_first_message_that_will_not_do(client, first, kind):
    assert refusal(client, **{"image": photo(client)} | first) == (kind, 1008)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 500, "3"])
def test_a_first_message_that_is_no_object(client, text):
    with client.websocket_connect("/v1/live", headers={"host": "localhost"}) as socket:
        socket.send_text(text)
        assert socket.receive_json()["kind"] == "usage_error"


def test_a_photo_without_a_face_is_told_in_its_own_words(client):
    assert refusal(client, image=photo(client, data=b"broken")) == ("face_error", 1008)
    assert not processes() and client.service.live.count() == 0


def test_consent_is_asked_for(start):
    with start(needs_consent=True, consent_text="The person agrees.") as client:
        upload = photo(client)
        with session(client, image=upload) as socket:
            said = socket.receive_json()
            assert said["kind"] == "needs_consent" and said["policy_text"] == "The person agrees."
        with session(client, image=upload, consent=True) as socket:
            assert socket.receive_json()["type"] == "hello"


def test_pages_of_other_sites_are_refused(client):
    assert refusal(client, {"origin": "http://elsewhere.example"}, image="upl_x") == ("foreign_origin", 1008)
    headers = {"host": "rebound.example", "origin": "http://rebound.example"}
    assert foreign(Settings(data="d"), headers).code == "wrong_host"


def test_a_server_that_ends_takes_its_sessions_along(start):
    with start() as client, session(client, image=photo(client)) as socket:
        socket.receive_json()
        (one,) = processes()
        os.kill(one, 9)  # what an end of the process looks like from outside
        with pytest.raises(WebSocketDisconnect):
            while True:
                socket.receive_bytes()
    until(lambda: not processes())
