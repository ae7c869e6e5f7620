"""Faults of the machine, not of a file: it works, or one line says what is missing. Runs the real program."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sonic_ms.errors import EngineError, OutputError, of_the_host
from sonic_ms.files.streams import Stream
from sonic_ms.files.temporary import PREFIX
from sonic_ms.media.video import VideoWriter, check_name

DEMO = (sys.executable, "-m", "sonic_ms", "demo", "--duration", "0.3", "--min-resolution", "256")
SHORT = ("demo", "--duration", "0.3", "--min-resolution", "256")
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as users have it
FRAME = np.zeros((64, 64, 3), np.uint8)


def demo(output, *more, **streams):
    """The finished process of a short video."""
    return subprocess.run([*DEMO, "--output", output, *more], **({"capture_output": True, "env": BUFFERED} | streams))


def in_shell(line):
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=BUFFERED)


@pytest.mark.slow
def test_a_name_that_is_not_utf8_is_printed_as_it_is(tmp_path):
    name = os.fsencode(tmp_path) + b"/ton\xff.mp4"
    done = demo(name, env={**BUFFERED, "PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stdout) == (0, name + b"\n"), done.stderr
    assert os.path.isfile(name)


@pytest.mark.slow
def test_a_long_name_works(tmp_path):
    output = tmp_path / ("a" * 251 + ".mp4")
    done = demo(output)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("flag", ["--output", "--image", "--audio"])
def test_a_name_that_no_folder_takes_is_refused_at_once(tmp_path, capsys, flag):
    from sonic_ms.cli import main

    arguments = {"--output": tmp_path / "o.mp4", "--image": __file__, "--audio": __file__}
    arguments[flag] = tmp_path / ("a" * 252 + ".mp4")
    code = main(["generate", *[str(word) for pair in arguments.items() for word in pair]])
    message = capsys.readouterr().err.strip()
    assert (code, message.count("\n")) == (7 if flag == "--output" else 3, 0), message


def test_the_name_of_a_resume_file_is_checked_too(tmp_path):
    check_name(tmp_path / ("a" * 230 + ".mp4.progress.safetensors"), "state")
    with pytest.raises(OutputError, match="256 bytes, expected at most 255"):
        check_name(tmp_path / ("ä" * 115 + "a.mp4.progress.safetensors"), "state")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "| true", "2>&1 >/dev/null | true"])
def test_a_video_needs_no_listener(tmp_path, closed):
    line = " ".join([*DEMO, "--output", str(tmp_path / "o.mp4"), closed])
    done = in_shell(f"set -o pipefail; {line}")
    assert (done.returncode, done.stdout, done.stderr.count("Error")) == (0, "", 0), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_a_reader_that_has_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", buffering=1) as pipe:
        stream = Stream(pipe, BrokenPipeError)
        print("nobody hears this", file=stream, flush=True)
        print("nor this", file=stream, flush=True)


def test_a_full_disk_under_stdout_is_named():
    done = in_shell(f"{sys.executable} -m sonic_ms -h >/dev/full")
    assert done.returncode == 7 and done.stderr.strip().count("\n") == 0, done.stderr
    assert "No space left" in done.stderr


def test_a_full_disk_under_stderr_loses_nothing():
    with open("/dev/full", "w") as full:
        print("a note", file=Stream(full, OSError), flush=True)


def test_names_go_out_as_bytes_and_other_text_as_escapes(tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as file:
        stream = Stream(file, BrokenPipeError)
        stream.write("\udcff é")
    assert (tmp_path / "out").read_bytes() == b"\xff \\xe9"


NO_HOME = """
import pwd, sys
def nobody(*_): raise KeyError("uid not found")
pwd.getpwuid = nobody
from sonic_ms.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_home(output, **more):
    variables = {name: value for name, value in os.environ.items() if name not in ("HOME", "SONIC_MS_ASSETS_DIR")}
    command = [sys.executable, "-c", NO_HOME, *SHORT, "--output", output]
    return subprocess.run(command, capture_output=True, text=True, env={**variables, **more})


@pytest.mark.slow
def test_a_user_without_a_home_needs_a_cache(tmp_path):
    done = without_home(tmp_path / "o.mp4", SONIC_MS_CACHE="")
    assert (done.returncode, done.stderr.strip().count("\n")) == (9, 0), done.stderr
    assert "no home folder" in done.stderr and "SONIC_MS_CACHE" in done.stderr
    done = without_home(tmp_path / "o.mp4", SONIC_MS_CACHE=os.path.expanduser("~/.cache/sonic_ms"))
    assert done.returncode == 0, done.stderr


NO_LIBGL = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
sys.meta_path.insert(0, Broken())
from sonic_ms.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("arguments", [SHORT, ("evaluate", "x.mp4")])
def test_a_library_that_opencv_lacks_is_named(tmp_path, arguments):
    command = [sys.executable, "-c", NO_LIBGL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip().count("\n")) == (10, 0), done.stderr
    assert "apt-get install libgl1" in done.stderr


def test_other_imports_are_not_blamed_on_the_host():
    error = ImportError("cannot import name 'x'")
    assert of_the_host(error) is error
    unknown = of_the_host(ImportError("libfoo.so.2: cannot open shared object file: No such file or directory"))
    assert isinstance(unknown, EngineError) and "libfoo.so.2" in str(unknown)


def started(folder, *more):
    """A demo whose half-written file has appeared."""
    command = [*DEMO[:4], "--min-resolution", "256", "--output", folder / "o.mp4", *more]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 200
    while not list(folder.glob("*.partial.mp4")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    assert list(folder.iterdir()), "the partial file never appeared"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_leave_nothing(tmp_path, name):
    process = started(tmp_path)
    process.send_signal(name)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "interrupted" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nohup_holds(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # children inherit it
    try:
        process = started(tmp_path, "--duration", "3")
        process.send_signal(signal.SIGHUP)
        process.communicate()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


WRITE = """
import sys, time
import numpy as np
from sonic_ms.media.video import VideoWriter
with VideoWriter(sys.argv[1], (64, 64)) as writer:
    writer.write(np.zeros((64, 64, 3), np.uint8))
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_the_next_video_removes_what_a_killed_program_left(tmp_path, name):
    with subprocess.Popen([sys.executable, "-c", WRITE, tmp_path / "a.mp4"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with VideoWriter(tmp_path / "b.mp4", (64, 64)) as writer:  # of a live process: both files stay
            writer.write(FRAME)
            assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 2
        process.send_signal(name)
        process.wait()
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    with VideoWriter(tmp_path / "c.mp4", (64, 64)) as writer:
        writer.write(FRAME)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.mp4", "c.mp4"]


def test_two_writers_of_one_output_do_not_meet(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", (64, 64), overwrite=True) as one:
        one.write(FRAME)
        with VideoWriter(tmp_path / "a.mp4", (64, 64), overwrite=True) as other:
            other.write(FRAME)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert Path(tmp_path / "a.mp4").stat().st_size > 500
