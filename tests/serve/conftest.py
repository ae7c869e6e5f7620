"""Servers for the tests: in this process with a worker that only pretends, and the real program."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.serve import process
from sonic_ms.serve.app import create_app
from sonic_ms.serve.database import Database
from sonic_ms.serve.files import Folders
from sonic_ms.serve.settings import Settings
from sonic_ms.serve.tenants import Tenants

FAKE = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))
SMALL = {"min_resolution": "64", "duration": "1"}


class Client(TestClient):
    """A client of a service in this process, with the calls that most tests make."""

    def make(self, seed=0, **fields):
        """The answer to POST /v1/videos; seed: see fake_worker.py."""
        files = {"input_reference": ("me.jpg", b"image"), "audio_reference": ("me.wav", b"audio")}
        headers = fields.pop("headers", None)
        for name in list(files):
            if fields.get(name, "").startswith("upl_"):
                del files[name]
        return self.post("/v1/videos", files=files, data={"seed": str(seed), **fields}, headers=headers)

    def until(self, name, *states, timeout=15.0, headers=None):
        """The video object once its state is one of `states`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            video = self.get(f"/v1/videos/{name}", headers=headers).json()
            if video.get("state") in states:
                return video
            time.sleep(0.02)
        raise AssertionError(f"never {states}: {video}")

    def until_ready(self, timeout):
        end = time.monotonic() + timeout
        while (answer := self.get("/readyz")).status_code != 200:
            assert time.monotonic() < end, answer.text
            time.sleep(0.02)

    @property
    def service(self):
        return self.app.state.service


@contextlib.contextmanager
def client_of(folder, local=True, wait=20, **settings):
    """wait: seconds for the worker to be ready; 0 not to wait."""
    app = create_app(Settings(data=folder, local=local, **settings))
    with Client(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        if wait:
            client.until_ready(wait)
        yield client


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL for all tests; who restarts it waits until it is back."""
    from tests.support.postgres import PostgresServer

    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def s3():
    """A server that speaks S3. A test that lets it refuse says when it ends."""
    from tests.support.s3 import KEYS, S3Server

    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def cluster(postgres, s3):
    """Settings of servers that share a new database and a new bucket."""
    name = f"test{secrets.token_hex(6)}"
    yield {"database": postgres.create(name), "files": s3.create(name)}
    s3.refusing = None
    postgres.admin(f"DROP DATABASE {name} WITH (FORCE)")


BOTH = ("one machine", pytest.param("cluster", marks=[pytest.mark.slow, pytest.mark.needs("postgresql")]))


@pytest.fixture(params=BOTH)
def place(request):
    """Settings of a server: SQLite and a folder, or PostgreSQL and S3."""
    return {} if request.param == "one machine" else request.getfixturevalue("cluster")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Function (settings) -> context manager of a Client of a service with the worker that pretends."""
    monkeypatch.setattr(process, "WORKER", FAKE)

    def make(folder=tmp_path / "data", **settings):
        return client_of(folder, **settings)

    return make


@pytest.fixture
def client(start):
    with start() as client:
        yield client


@pytest.fixture
def anywhere(start, place):
    """A client at each place."""
    with start(**place) as client:
        yield client


@pytest.fixture
def two_tenants(start, tmp_path):
    """(Client of a service with keys, headers of tenant a, headers of tenant b)."""
    folder = tmp_path / "data"
    database = Database(Folders(folder).data)
    tenants = Tenants(database)
    scopes = ("read", "create", "delete", "unlabelled", "audit", "metrics")
    a, b = ({"Authorization": f"Bearer {tenants.add_key(name, scopes)}"} for name in ("a", "b"))
    database.close()
    with start(folder, local=False) as client:
        yield client, a, b


class Server:
    """`sonic-ms serve` in a process of its own, that can be killed and started again."""

    def __init__(self, folder, *arguments):
        self.folder, self.arguments, self.process, self.url = folder, arguments, None, None

    def start(self):
        command = [sys.executable, "-m", "sonic_ms", "serve", "--port", "0", "--data", str(self.folder)]
        self.log = open(self.folder.parent / "serve.log", "ab")  # noqa: SIM115 - until `end`
        self.process = subprocess.Popen([*command, *self.arguments], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        assert "http://" in line, (line, (self.folder.parent / "serve.log").read_text())
        self.url = line.split()[-1]
        self.http = httpx.Client(base_url=self.url, timeout=60)
        return self

    def wait_ready(self, timeout=60):
        end = time.monotonic() + timeout
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() < end, (self.folder.parent / "serve.log").read_text()
            time.sleep(0.05)
        return self

    def make(self, **fields):
        files = {"input_reference": DEMO_IMAGE.open("rb"), "audio_reference": DEMO_AUDIO.open("rb")}
        answer = self.http.post("/v1/videos", files=files, data={**SMALL, **fields})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def until(self, name, *states, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            video = self.http.get(f"/v1/videos/{name}").json()
            if video["state"] in states:
                return video
            time.sleep(0.05)
        raise AssertionError(f"never {states}: {json.dumps(video)}")

    def workers(self):
        """Ids of the processes that this server started."""
        path = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()]

    def end(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, how)
            self.process.wait(30)
        if self.process:
            self.process.stdout.close()
            self.log.close()
            self.http.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The real program with its real worker, ready, for tests that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("serve") / "data", "--engine", "onnxruntime", "--private-webhooks")
    with contextlib.ExitStack() as stack:
        stack.callback(server.end)
        yield server.start().wait_ready()
