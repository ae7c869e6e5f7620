"""Half-written files: gone when their process is, never while it lives."""

import os
import signal
import subprocess
import sys
import time

import pytest

from sonic_ms.files import temporary
from sonic_ms.files.temporary import PREFIX, Temporary, remove_stale, signals_held

HOLD = """
import sys, time
from sonic_ms.files.temporary import Temporary
with Temporary(sys.argv[1], ".mp4", is_folder=sys.argv[2] == "folder") as path:
    print(path, flush=True)
    time.sleep(60)
"""
kinds = pytest.mark.parametrize("kind", ["file", "folder"])


@pytest.fixture
def holder(tmp_path):
    """Function: a process that holds one, and its path."""
    processes = []

    def start(kind):
        command = [sys.executable, "-c", HOLD, tmp_path, kind]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return processes[-1], temporary.Path(processes[-1].stdout.readline().strip())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@kinds
def test_nothing_is_left_of_a_block_that_fails(tmp_path, kind):
    with pytest.raises(RuntimeError), Temporary(tmp_path, is_folder=kind == "folder") as path:
        (path / "a" if kind == "folder" else path).write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@kinds
def test_what_was_renamed_stays(tmp_path, kind):
    with Temporary(tmp_path, is_folder=kind == "folder") as path:
        os.rename(path, tmp_path / "whole")
    assert [one.name for one in tmp_path.iterdir()] == ["whole"]


def test_a_file_has_the_rights_that_the_user_gives_new_files(tmp_path):
    with Temporary(tmp_path) as path:
        (tmp_path / "usual").touch()
        assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@kinds
@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_one_removes_what_a_killed_process_left(tmp_path, holder, kind, name):
    process, path = holder(kind)
    process.send_signal(name)
    process.wait()
    assert path.exists()  # no code of ours ran
    with Temporary(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]


@kinds
def test_one_whose_process_lives_stays_however_old(tmp_path, holder, kind):
    _, path = holder(kind)
    os.utime(path, (0, 0))
    remove_stale(tmp_path)
    assert path.exists()


@kinds
def test_one_of_another_machine_stays_for_a_day(tmp_path, kind):
    path = tmp_path / f"{PREFIX}00000000-abc"
    path.mkdir() if kind == "folder" else path.touch()
    remove_stale(tmp_path)
    assert path.exists()
    os.utime(path, (0, time.time() - temporary.DAY - 60))
    remove_stale(tmp_path)
    assert not path.exists()


@kinds
def test_without_locks_one_stays_for_a_day(tmp_path, monkeypatch, kind):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    with Temporary(tmp_path, is_folder=kind == "folder") as path:
        remove_stale(tmp_path)
        assert path.exists()
        os.utime(path, (0, time.time() - temporary.DAY - 60))
        remove_stale(tmp_path)
        assert not path.exists()


def test_files_of_others_stay(tmp_path):
    (tmp_path / ".sonic").touch()
    (tmp_path / "sonic-ms-.mp4").touch()
    remove_stale(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_block(name):
    """Python's own handler of SIGTERM would end the test: one that raises stands in for it."""
    before = signal.signal(name, signal.default_int_handler)
    reached = []
    try:
        with pytest.raises(KeyboardInterrupt), signals_held():
            os.kill(os.getpid(), name)
            reached.append("end")
        assert signal.getsignal(name) == signal.default_int_handler and reached == ["end"]
    finally:
        signal.signal(name, before)
