"""The WebSocket of docs/live.md, over a real server, with sessions that draw at once."""

import asyncio
import json
import threading
import time
import urllib.request

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from sonic_ms.errors import FaceError
from sonic_ms.live.protocol import pcm, unpack
from tests.live.conftest import served
from tests.support.live_speech import numbered


def drawing():
    return [thread for thread in threading.enumerate() if thread.name == "sonic-ms live"]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


async def until_gone(sessions):
    """Seconds until no thread draws any more."""
    started = time.monotonic()
    while drawing() and time.monotonic() - started < 10:
        await asyncio.sleep(0.02)
    assert all(session.closed for session in sessions)
    return time.monotonic() - started


async def last_words(address, *messages, query=""):
    """The last JSON message of the server and its close code, after these messages."""
    said = {}
    async with connect(f"ws://{address}/stream{query}") as socket:
        try:
            for message in messages:
                await socket.send(message)
            async for answer in socket:
                said = json.loads(answer) if isinstance(answer, str) else said
        except ConnectionClosed:
            pass
    return said, socket.close_code


def test_sound_comes_back_with_frames(plain_server):
    samples = numbered(30)

    async def talk():
        async with connect(f"ws://{plain_server}/stream") as socket:
            hello = json.loads(await socket.recv())
            await socket.send(pcm(samples[:5000]).tobytes()[:-1])
            await socket.send(pcm(samples[:5000]).tobytes()[-1:] + pcm(samples[5000:]).tobytes())
            await socket.send('{"type": "end"}')
            return hello, [unpack(one) if isinstance(one, bytes) else json.loads(one) async for one in socket]

    hello, (*frames, end) = run(talk())
    assert hello["fps"] == 25 and hello["look_ahead"] == 0.2 and hello["sample_rate"] == 16000
    assert json.loads(hello["AIGC"])["Label"] == "1"
    assert end["type"] == "end"
    spoken = [frame for frame in frames if frame[1] is not None]
    np.testing.assert_array_equal(np.concatenate([frame[2] for frame in spoken]), pcm(samples))
    assert [frame[0] for frame in frames] == list(range(len(frames)))
    pictures = [frame[3] for frame in frames if frame[3]]
    assert len(pictures) > 0.8 * len(frames) and all(picture[:2] == b"\xff\xd8" for picture in pictures)


def test_interrupt_and_a_second_one(plain_server, sessions):
    async def talk():
        async with connect(f"ws://{plain_server}/stream") as socket:
            await socket.recv()
            await socket.send(pcm(numbered(200)).tobytes())
            heard = [unpack(await socket.recv()) for _ in range(10)]
            await socket.send('{"type": "interrupt"}')
            await socket.send('{"type": "interrupt"}')
            after = [unpack(await socket.recv()) for _ in range(10)]
            return heard, after

    heard, after = run(talk())
    assert any(frame[2].any() for frame in heard)
    assert not any(frame[2].any() for frame in after[-5:])
    assert sessions[0].queued == 0


def test_a_closed_tab_frees_the_processor(plain_server, sessions):
    async def talk():
        async with connect(f"ws://{plain_server}/stream") as socket:
            await socket.recv()
            await socket.send(pcm(numbered(200)).tobytes())
            await socket.recv()
            assert drawing()
        return await until_gone(sessions)

    assert run(talk()) < 2


def test_a_cut_wire_frees_the_processor(plain_server, sessions):
    """No close frame: the socket is simply gone."""

    async def talk():
        socket = await connect(f"ws://{plain_server}/stream")
        await socket.recv()
        socket.transport.abort()
        return await until_gone(sessions)

    assert run(talk()) < 2


def test_a_receiver_that_never_reads(plain_server, sessions):
    """The server's memory stays bounded, and the session ends with the sender."""

    async def talk():
        socket = await connect(f"ws://{plain_server}/stream", max_queue=1)
        await socket.send(pcm(numbered(100)).tobytes())
        await asyncio.sleep(1.5)
        assert sessions[0].queued < 4
        socket.transport.abort()
        return await until_gone(sessions)

    assert run(talk()) < 2


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (bytes(2 * 16000 * 20), "ResourceError", "at most 10 s"),
        ("no json", "UsageError", "JSON"),
        ("[1]", "UsageError", "JSON"),
        ('{"type": "dance"}', "UsageError", "interrupt"),
    ],
)
def test_a_bad_message_is_one_line_and_a_clean_close(plain_server, sessions, message, kind, text):
    said, code = run(last_words(plain_server, message))
    assert said["kind"] == kind and text in said["message"] and "\n" not in said["message"]
    assert code == 1008
    run(until_gone(sessions))
    assert json.load(urllib.request.urlopen(f"http://{plain_server}/healthz"))["sessions"] == 0


def test_a_rate_that_cannot_be(plain_server):
    said, code = run(last_words(plain_server, bytes(10), query="?rate=5"))
    assert "5 Hz" in said["message"] and code == 1008


def test_one_too_many_is_refused(plain_server):
    async def talk():
        three = [await connect(f"ws://{plain_server}/stream") for _ in range(3)]
        for socket in three:
            await socket.recv()
        refused = await last_words(plain_server)
        for socket in three:
            await socket.close()
        return refused

    said, code = run(talk())
    assert said["kind"] == "ResourceError" and "3 sessions" in said["message"] and code == 1008


def test_pages_of_other_sites_are_refused(plain_server):
    async def talk():
        async with connect(f"ws://{plain_server}/stream", origin="http://evil.example") as socket:
            return json.loads(await socket.recv())

    assert "another site" in run(talk())["message"]


def test_a_call_without_an_offer(plain_server, sessions):
    async def talk():
        async with connect(f"ws://{plain_server}/call") as socket:
            await socket.recv()
            await socket.send('{"type": "offer", "sdp": "nonsense"}')
            return json.loads(await socket.recv())

    assert "offer" in run(talk())["message"]
    run(until_gone(sessions))


@pytest.mark.parametrize(("error", "text"), [(FaceError("no face found"), "no face"), (KeyError("x"), "KeyError")])
def test_a_session_that_does_not_open(error, text):
    def fails(microphone):
        raise error

    with served(fails) as address:
        said, code = run(last_words(address))
    assert text in said["message"] and code == (1008 if isinstance(error, FaceError) else 1011)


def test_a_session_that_breaks_while_it_draws(plain_server, sessions):
    async def talk():
        async with connect(f"ws://{plain_server}/stream") as socket:
            await socket.recv()
            sessions[0]._speaker.next = lambda: 1 / 0
            said = {}
            try:
                async for message in socket:
                    said = json.loads(message) if isinstance(message, str) else said
            except ConnectionClosed:
                pass
            return said

    assert "ZeroDivisionError" in run(talk())["message"]
    run(until_gone(sessions))


def test_the_page_is_there(plain_server):
    with urllib.request.urlopen(f"http://{plain_server}/") as answer:
        assert b'from "./call.js"' in answer.read()
    with urllib.request.urlopen(f"http://{plain_server}/call.js") as answer:
        assert b"RTCPeerConnection" in answer.read() and "javascript" in answer.headers["Content-Type"]
