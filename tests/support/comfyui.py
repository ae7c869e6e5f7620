"""A running ComfyUI, spoken to as its own page does: over HTTP, and a web socket for progress."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NODES = ROOT / "integrations" / "comfyui"
HERE = ROOT / "tests" / "comfyui"
TIMEOUT = 300  # seconds for a start or a prompt

# A second extension with the same nodes by the first interface, under names of its own.
TWIN = """
import importlib.util, sys
path = {path!r}
spec = importlib.util.spec_from_file_location("sonic_ms_twin", path + "/__init__.py", submodule_search_locations=[path])
package = sys.modules["sonic_ms_twin"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from sonic_ms_twin.classic import classes
from sonic_ms_twin.nodes import OWN
found, titles = classes(OWN)
NODE_CLASS_MAPPINGS = {{"Classic" + name: kind for name, kind in found.items()}}
"""


def folder():
    """Where scripts/comfyui-test-setup put it. Raises FileNotFoundError."""
    place = Path(os.environ.get("SONIC_MS_CACHE") or Path.home() / ".cache" / "sonic_ms") / "comfyui"
    if not (place / "state").is_file():
        raise FileNotFoundError(f"no ComfyUI in {place}; scripts/comfyui-test-setup makes one")
    return place


class Server:
    """A ComfyUI with the nodes; base: folder for all that it reads and writes."""

    def __init__(self, base):
        self.base = base
        extensions = base / "custom_nodes"
        (extensions / "twin").mkdir(parents=True)
        (extensions / "sonic_ms").symlink_to(NODES)
        (extensions / "twin" / "__init__.py").write_text(TWIN.format(path=str(NODES)))
        (base / "input").mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._python = str(folder() / "venv" / "bin" / "python")
        command = [self._python, str(HERE / "main.py"), str(folder()), "--cpu", "--listen", "127.0.0.1"]
        command += ["--port", str(self.port), "--base-directory", str(base), "--disable-auto-launch"]
        command += ["--disable-api-nodes", "--database-url", f"sqlite:///{base / 'comfyui.db'}"]
        environment = {**os.environ, "SONIC_MS_PYTHON": sys.executable}
        self.log = base / "log.txt"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                self.get("system_stats")
                return
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start: {self.log.read_text()[-2000:]}")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=TIMEOUT) as answer:
            return json.loads(answer.read() or "null")

    def post(self, path, content):
        """(status, answer)."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", json.dumps(content).encode())
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def submit(self, prompt, client="tests"):
        status, answer = self.post("prompt", {"prompt": prompt, "client_id": client})
        assert status == 200, answer
        return answer["prompt_id"]

    def result(self, prompt_id):
        """History of a finished prompt."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if found := self.get(f"history/{prompt_id}"):
                return found[prompt_id]
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text()[-2000:])

    def listen(self, client):
        """Messages of a client, as they come."""
        return Messages([self._python, str(HERE / "listen.py"), str(self.port), client])

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)


class Messages:
    def __init__(self, command):
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.seen = []
        self.until("status")  # it is connected

    def until(self, kind, test=lambda data: True):
        """Data of the next message of a kind for which the test is true."""
        for line in self._process.stdout:
            message = json.loads(line)
            self.seen.append(message)
            if message["type"] == kind and test(message["data"]):
                return message["data"]
        raise EOFError(self.seen)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def failure(history):
    """(kind of exception, its message) of a prompt that failed."""
    data = next(data for kind, data in history["status"]["messages"] if kind == "execution_error")
    return data["exception_type"], data["exception_message"].strip()


def copy_inputs(server, **files):
    for name, path in files.items():
        shutil.copyfile(path, server.base / "input" / f"{name}{Path(path).suffix}")
