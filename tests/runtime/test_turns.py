"""Threads take turns, forks are refused: for people who write servers, see docs/servers.md."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sonic_ms.errors import EngineError
from sonic_ms.runtime import turns

SERVER = Path(__file__).parent.parent / "support" / "server.py"
PATIENCE = 500  # seconds; it takes 100 of one core, other programs may have the rest


@pytest.fixture(scope="module")
def server():
    done = subprocess.run([sys.executable, SERVER, str(PATIENCE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["two models", "one model"])
def test_threads_get_the_frames_they_would_have_got_alone(server, case):
    assert server["alone"][0] != server["alone"][1] and len(server["alone"][0]) == 25
    assert server[case] == [server["alone"]] * 2


@pytest.mark.slow
def test_a_video_that_is_half_read_holds_nothing_up(server):
    assert server["interleaved"] == server["alone"]
    assert server["another while one is half read"] == server["alone"][1]
    assert server["half read"] == server["alone"][0]


@pytest.mark.slow
def test_a_model_may_be_loaded_in_a_thread(server):
    assert server["loaded in a thread"] == server["alone"][1]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["generate in a fork", "load in a fork", "read in a fork"])
def test_a_fork_is_told_at_once(server, case):
    assert server[case].startswith("EngineError: process ") and "spawn" in server[case]
    assert server["parent of forks"] == server["alone"][0]


def test_one_at_a_time_whatever_is_called():
    running, most = 0, 0

    def call():
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1

    one, other = turns.in_turn(call), turns.in_turn(lambda: call())
    threads = [threading.Thread(target=function) for function in (one, other) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_turn_may_ask_for_another():
    assert turns.in_turn(turns.in_turn(lambda: 5))() == 5


def test_another_process_than_the_first_is_refused(monkeypatch):
    monkeypatch.setattr(turns, "_home", os.getpid() + 1)
    with pytest.raises(EngineError, match="forked off process"):
        turns.in_turn(lambda: 5)()
