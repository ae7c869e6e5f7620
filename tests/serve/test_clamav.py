"""Uploads and a virus scanner: a real clamd that knows one name, and doubles for what it does not do by itself."""

import contextlib
import hashlib
import shutil
import socket
import subprocess
import threading
import time

import pytest

from tests.serve.test_http import upload

# the harmless file that every scanner takes for a virus, in two halves: no scanner shall find this very file
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + rb"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


@pytest.fixture(scope="module")
def clamd(tmp_path_factory):
    """Socket of a real clamd with a database of one line, for files of up to 1 MB."""
    folder = tmp_path_factory.mktemp("clamd")
    folder.chmod(0o755)
    (folder / "db").mkdir()
    line = f"{hashlib.md5(EICAR).hexdigest()}:{len(EICAR)}:Local.EICAR\n"
    (folder / "db" / "local.hdb").write_text(line)
    path, config = folder / "clamd.sock", folder / "clamd.conf"
    config.write_text(f"DatabaseDirectory {folder}/db\nLocalSocket {path}\nForeground yes\nStreamMaxLength 1M\n"
                      "User root\n")  # fmt: skip
    program = shutil.which("clamd") or "/usr/sbin/clamd"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-c", config], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        process.wait(30)


def files_of(client):
    return list(client.service.folders.data.glob("tenants/*/*/*"))


@pytest.mark.needs("clamd")
def test_an_infected_upload_is_refused_with_one_line(start, clamd):
    with start(clamav=clamd) as client:
        answer = client.post("/v1/uploads", files={"file": ("me.jpg", EICAR)}, data={"kind": "image"})
        assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (422, "infected", "file")
        assert "Local.EICAR" in answer.json()["detail"] and "\n" not in answer.json()["detail"]
        files = {"input_reference": b"image", "audio_reference": EICAR}
        answer = client.post("/v1/videos", files=files)
        assert (answer.status_code, answer.json()["param"]) == (422, "audio_reference")
        assert client.post("/images", files={"image": ("me.jpg", EICAR)}).status_code == 422
        assert files_of(client) == [] and client.get("/v1/videos").json()["data"] == []


@pytest.mark.needs("clamd")
def test_a_clean_upload_is_kept_whole(start, clamd):
    data = bytes(range(256)) * 1000
    with start(clamav=clamd) as client:
        assert upload(client, data=data)["sha256"] == hashlib.sha256(data).hexdigest()
        assert client.until(client.make().json()["id"], "completed")


@pytest.mark.needs("clamd")
def test_what_clamd_does_not_look_at_is_not_taken(start, clamd):
    with start(clamav=clamd) as client:
        answer = client.post("/v1/uploads", files={"file": ("me.jpg", bytes(3 << 20))}, data={"kind": "image"})
        assert (answer.status_code, answer.json()["code"]) == (503, "scanner_unavailable")
        assert "size limit exceeded" in answer.json()["detail"] and files_of(client) == []


@contextlib.contextmanager
def double(path, answer):
    """What listens at a socket, takes whatever comes and answers with bytes that clamd would not say today."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                taken, _ = listening.accept()
                with taken:
                    taken.recv(1 << 20)
                    taken.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield path
    finally:
        listening.close()


@pytest.mark.parametrize("answer", [b"", b"stream: lstat() failed ERROR\0", b"\xff\0", b"stream: OK but no\0"])
def test_a_scanner_that_gives_no_verdict_lets_nothing_through(start, tmp_path, answer):
    with double(tmp_path / "s", answer) as path, start(clamav=path) as client:
        refused = client.make()
        assert (refused.status_code, refused.json()["code"]) == (503, "scanner_unavailable")
        assert refused.headers["retry-after"] and files_of(client) == []


def test_without_its_scanner_a_service_takes_nothing(start, tmp_path):
    with start(clamav=tmp_path / "gone.sock") as client:
        refused = client.make()
        assert (refused.status_code, refused.json()["code"]) == (503, "scanner_unavailable")
        assert "\n" not in refused.json()["detail"] and files_of(client) == []
        assert client.get("/v1/videos").status_code == 200
