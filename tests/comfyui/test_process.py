"""The process that runs sonic_ms for ComfyUI, in the hands of a double that behaves and misbehaves as it is told."""

import os
import signal
import stat
import sys
import threading
import time

import pytest

from integrations.comfyui import process
from integrations.comfyui.process import NodeError, Worker

DOUBLE = """
import json, os, select, signal, sys, time
def say(content):
    os.write(1, (content if isinstance(content, str) else json.dumps(content)).encode() + b"\\n")
say({"sonic_ms": "0"})
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "cancel":
        continue
    what = request["what"]
    print("working on", what, file=sys.stderr, flush=True)
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(3)
    if what == "garbage":
        say("Hello, world")
    if what == "number":
        say("7")
    if what == "deaf":
        time.sleep(60)
    if what == "error":
        say({"error": "FaceError", "message": "no face"})
        continue
    if what == "long":
        for done in range(600):
            say({"progress": ["frames", done, 600]})
            if select.select([0], [], [], 0.02)[0] and "cancel" in sys.stdin.readline():
                say({"cancelled": True})
                break
        continue
    say({"progress": ["frames", 1, 2]})
    say({"made": {"pid": os.getpid(), "what": what}})
"""


class Stop(Exception):
    """What ComfyUI raises for an interrupt."""


def never():
    """check of a user who does not interrupt; a job that hangs is a failure all the same."""
    deadline = time.monotonic() + 20

    def check():
        assert time.monotonic() < deadline

    return check


def after(test):
    """check of a user who interrupts as soon as the test is true."""

    def check():
        if test():
            raise Stop

    return check


@pytest.fixture
def worker(tmp_path, monkeypatch):
    script = tmp_path / "double.py"
    script.write_text(DOUBLE)
    monkeypatch.setattr(process, "SCRIPT", script)
    one = Worker(sys.executable)
    yield one
    one.close()


def ask(worker, what, say=lambda answer: None, check=None):
    return worker.run({"do": "make", "what": what}, say, check or never())


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_stays_warm_and_tells_of_its_progress(worker):
    heard = []
    first = ask(worker, "a", heard.append)
    assert heard == [{"progress": ["frames", 1, 2]}]
    assert ask(worker, "b") == {"pid": first["pid"], "what": "b"}
    ask(worker, "c")
    with pytest.raises(NodeError, match=r"^no face$"):
        ask(worker, "error")
    assert ask(worker, "d")["pid"] == first["pid"]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("crash", r"crashed \(SIGSEGV\): working on crash; run it again"),
        ("killed", "was killed; the system may be out of memory"),
        ("exit", "ended with code 3 while it ran sonic_ms: working on exit; install"),
        ("garbage", "said 'Hello, world', which is no answer, and was ended"),
        ("number", "said '7', which is no answer"),
    ],
)
def test_a_process_that_fails_is_one_line_and_the_next_job_gets_a_new_one(worker, what, words):
    before = ask(worker, "a")["pid"]
    with pytest.raises(NodeError, match=words) as error:
        ask(worker, what)
    assert "\n" not in str(error.value) and worker.pid is None and not alive(before)
    assert ask(worker, "b")["pid"] != before


def test_an_interrupt_ends_the_job_and_keeps_the_process(worker):
    heard = []
    before = ask(worker, "a")["pid"]
    with pytest.raises(Stop):
        ask(worker, "long", heard.append, after(lambda: len(heard) > 2))
    assert len(heard) < 100 and worker.pid == before
    assert ask(worker, "b") == {"pid": before, "what": "b"}  # and not what was left of the one before


def test_what_does_not_listen_is_killed(worker, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.3)
    before, started = ask(worker, "a")["pid"], time.monotonic()
    with pytest.raises(Stop):
        ask(worker, "deaf", check=after(lambda: time.monotonic() > started + 0.1))
    assert not alive(before) and time.monotonic() < started + 10
    assert ask(worker, "b")["pid"] != before


def test_an_interrupt_between_two_jobs_is_of_no_job(worker):
    before = ask(worker, "a")["pid"]
    with pytest.raises(Stop):
        ask(worker, "b", check=after(lambda: True))
    assert ask(worker, "c") == {"pid": worker.pid, "what": "c"}
    assert worker.pid == before


def test_two_at_once_take_turns_and_an_interrupt_is_for_its_own(worker):
    heard, results, begun = [], {}, threading.Event()

    def hear(answer):
        heard.append(answer)
        begun.set()

    def job(name, what, say, check):
        try:
            results[name] = ask(worker, what, say, check)
        except Stop:
            results[name] = "stopped"

    stop = threading.Event()
    first = threading.Thread(target=job, args=("first", "long", hear, after(stop.is_set)))
    first.start()
    begun.wait(10)
    waits = threading.Thread(target=job, args=("waits", "a", hear, after(lambda: len(heard) > 5)))
    second = threading.Thread(target=job, args=("second", "b", lambda answer: None, never()))
    waits.start()
    second.start()
    waits.join(10)
    assert results == {"waits": "stopped"}  # while the first went on, and the second still waits
    seen = len(heard)
    while len(heard) < seen + 3:
        time.sleep(0.01)
    assert first.is_alive()
    stop.set()
    for thread in (first, second):
        thread.join(10)
    assert results["first"] == "stopped" and results["second"]["what"] == "b"


def test_an_error_of_the_listener_ends_the_job(worker):
    before = ask(worker, "a")["pid"]

    def say(answer):
        raise NodeError("too large")

    with pytest.raises(NodeError, match="too large"):
        ask(worker, "long", say)
    assert ask(worker, "b")["pid"] == before


def test_an_interpreter_that_is_none(tmp_path):
    with pytest.raises(NodeError, match=r"cannot start /gone/python \(No such file or directory\); install sonic_ms"):
        ask(Worker("/gone/python"), "a")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(bare.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(NodeError, match=r"has no sonic_ms it can import \(ModuleNotFoundError: .*SONIC_MS_PYTHON"):
        ask(Worker(str(bare)), "a")


PARENT = """
import sys
from integrations.comfyui.process import Worker
def say(answer):
    print(one.pid, flush=True)
one = Worker(sys.executable)
one.run({"do": "make", "what": "deaf"}, say, lambda: print(one.pid, flush=True) if one.pid else None)
"""


def test_it_ends_with_comfyui(tmp_path):
    """Killed while the real process starts or waits: nothing of ComfyUI runs any more that could end it."""
    import subprocess

    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=process.SCRIPT.parents[2]) as one:
        pid = int(one.stdout.readline())
        assert alive(pid)
        one.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
