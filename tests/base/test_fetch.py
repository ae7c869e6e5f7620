"""`sonic-ms fetch base` against a hub of our own on this machine."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from sonic_ms.base.fetch import REPOSITORIES
from sonic_ms.base.options import BaseOptions

ROOT = Path(__file__).parents[2]


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers /OWNER/NAME/resolve/main/FILE with a few bytes that say which file it is."""

    seen: ClassVar = []
    missing: ClassVar = set()

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.seen.append(self.path)
        data = f"contents of {self.path}".encode()
        if any(self.path.endswith(file) for file in self.missing):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    Hub.seen, Hub.missing = [], set()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(folder, hub, *flags):
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "sonic_ms", "fetch", "base", "--dst", str(folder / "got"), *flags]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def test_every_file_arrives_after_the_licences_were_shown(hub, tmp_path):
    done = fetch(tmp_path, hub, "--accept-licences")
    assert done.returncode == 0, done.stderr
    for repository in REPOSITORIES:
        assert f"{repository.name} ({repository.gigabytes:g} GB): {repository.licence}" in done.stderr
        for file in repository.files:
            path = tmp_path / "got" / repository.folder / file
            assert path.read_text() == f"contents of /{repository.name}/resolve/main/{file}"
    assert "CC BY-NC-SA 4.0, no commercial use" in done.stderr


def test_nothing_is_fetched_without_consent(hub, tmp_path):
    done = fetch(tmp_path, hub)
    assert done.returncode == 2 and "licences were not accepted" in done.stderr
    assert not Hub.seen and not (tmp_path / "got").exists()


def test_a_file_that_is_not_there_is_named(hub, tmp_path):
    Hub.missing = {"RIFE/flownet.pkl"}
    done = fetch(tmp_path, hub, "--accept-licences")
    assert done.returncode == 9 and "cannot fetch RIFE/flownet.pkl of LeonJoe13/Sonic" in done.stderr


def test_the_published_configuration_is_the_default():
    values = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text())
    assert values.pop("model") == "base"
    assert BaseOptions(**values) == BaseOptions()
