"""A small server of one face: a page that speaks by WebRTC, and a WebSocket for machines. See docs/live.md."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse

from sonic_ms.errors import ResourceError, SonicError, UsageError
from sonic_ms.labels.aigc import DEFAULT_PRODUCER
from sonic_ms.live.feed import Feed
from sonic_ms.live.protocol import hello, pack, problem
from sonic_ms.live.session import LiveSession

PAGE = Path(__file__).parent / "page" / "index.html"
CALL = PAGE.with_name("call.js")  # also of the service's page
MOST_MESSAGE = 4_000_000  # bytes of one message of a sender: two minutes at 16 kHz
GONE = 1  # seconds within which a receiver has to take its last messages
REFUSED, BROKEN = 1008, 1011  # codes of RFC 6455 for a sender's mistake, and for ours
log = logging.getLogger("sonic_ms.live")
Open = Callable[[bool], LiveSession]  # (whether the sound comes from a microphone) -> a session


def create_app(open_session: Open, most_sessions: int = 3, producer: str = DEFAULT_PRODUCER) -> FastAPI:
    """The application. open_session is called in a thread of its own for every connection.
    producer: who is named in the label."""
    app = FastAPI(title="sonic-ms live", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.sessions = 0

    @asynccontextmanager
    async def connection(socket: WebSocket) -> AsyncIterator[Callable[[], None]]:
        """Accepts; turns errors into a last message. Yields what refuses other sites and one session too many."""
        await socket.accept()
        code = 1000
        taken = app.state.sessions < most_sessions
        app.state.sessions += taken

        def admit() -> None:
            if not _same_site(socket):
                raise UsageError("a page of another site may not use this server")
            if not taken:
                raise ResourceError(f"{most_sessions} sessions run already, which is the limit; try again later")

        try:
            yield admit
        except WebSocketDisconnect:
            return
        except Exception as error:
            if not isinstance(error, SonicError):
                log.exception("live session failed")
            code = REFUSED if isinstance(error, SonicError) else BROKEN
            await _quietly(socket.send_json(problem(error)))
        finally:
            app.state.sessions -= taken
        await _quietly(socket.close(code))

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(PAGE)

    @app.get("/call.js")
    async def script() -> FileResponse:
        return FileResponse(CALL)

    @app.get("/healthz")
    async def healthz() -> dict[str, int]:
        return {"sessions": app.state.sessions, "most": most_sessions}

    @app.websocket("/stream")
    async def stream(socket: WebSocket, rate: int = 16000, microphone: bool = False) -> None:
        async with connection(socket) as admit:
            admit()
            session = await _opened(socket, open_session, microphone)
            feed = Feed(session, pack)
            try:
                await socket.send_json(hello(session, producer))
                await _first_of(_listen(socket, session, rate), _send(socket, feed))
            finally:
                await feed.close()

    @app.websocket("/call")
    async def call(socket: WebSocket) -> None:
        from sonic_ms.live.rtc import Call

        async with connection(socket) as admit:
            admit()
            session = await _opened(socket, open_session, True)
            one = Call(session)
            try:
                await socket.send_json(hello(session, producer))
                sdp = read_message(await socket.receive_text()).get("sdp")
                await socket.send_json({"type": "answer", "sdp": await one.answer(str(sdp))})
                await _first_of(_listen(socket, session, 16000), one.finished())
            finally:
                await one.close()

    return app


async def _opened(socket: WebSocket, open_session: Open, microphone: bool) -> LiveSession:
    return await asyncio.to_thread(open_session, microphone)


async def _listen(socket: WebSocket, session: LiveSession, rate: int) -> None:
    """What the sender says, until it is gone."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1000)
        if (data := message.get("bytes")) is not None:
            session.push(data, rate)
            continue
        said = read_message(message["text"]).get("type")
        if said == "interrupt":
            session.interrupt()
        elif said == "end":
            session.end()
        else:
            raise UsageError('a message is {"type": "interrupt"}, {"type": "end"}, or bytes of sound')


async def _send(socket: WebSocket, feed: Feed) -> None:
    async for message in feed:
        await socket.send_bytes(message)
    await socket.send_json({"type": "end", "dropped": feed.session.dropped})


async def _first_of(*coroutines: Any) -> None:
    """Run several until one ends, and take the others down with it."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _quietly(coroutine: Any) -> None:
    """To somebody who may be gone, or not read any more."""
    try:
        await asyncio.wait_for(coroutine, GONE)
    except Exception:
        log.debug("the other side is gone")


def read_message(text: str) -> dict[str, Any]:
    """A JSON object. Raises UsageError."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise UsageError("a message is no JSON object; see docs/live.md")
    return said


def _same_site(socket: WebSocket) -> bool:
    """Browsers let any page open a WebSocket anywhere, and say from where."""
    origin = socket.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == socket.headers.get("host")
