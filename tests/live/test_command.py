"""`sonic-ms live` from start to end."""

import asyncio
import json
import signal
import socket
import subprocess
import sys

import pytest
from websockets.asyncio.client import connect

from sonic_ms.cli import main
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.live.protocol import pcm, unpack
from sonic_ms.media.audio import load_audio


@pytest.mark.slow
def test_it_serves_a_face_and_ends_on_a_signal():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["live", "--image", str(DEMO_IMAGE), "--port", str(port), "--min-resolution", "128"]
    process = subprocess.Popen([sys.executable, "-m", "sonic_ms", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/\n"
        messages = asyncio.run(asyncio.wait_for(talk(port), 60))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    frames = [unpack(one) for one in messages if isinstance(one, bytes)]
    assert len(frames) >= 50 and json.loads(messages[-1])["type"] == "end"
    assert len({picture for *_, picture in frames if picture}) > 1  # a busy machine drops many


async def talk(port):
    for _ in range(100):  # the address is printed just before the port is open
        try:
            async with connect(f"ws://127.0.0.1:{port}/stream") as server:
                await server.send(pcm(load_audio(DEMO_AUDIO)[:32000]).tobytes())
                await server.send('{"type": "end"}')
                return [message async for message in server]
        except OSError:
            await asyncio.sleep(0.1)
    raise TimeoutError("the server does not listen")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--port", "70000"], 2, "port is 70000"),
        (["--sessions", "0"], 2, "sessions is 0"),
        (["--image", "gone.jpg"], 3, "gone.jpg"),
        (["--look-ahead", "3"], 2, "look_ahead"),
        (["--duration", "3"], 2, "duration is for whole recordings"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, code, text, capsys):
    assert main(["live", *arguments]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and text in lines[0]


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["live"]) == 10
    assert "pip install 'sonic_ms[live]'" in capsys.readouterr().err
