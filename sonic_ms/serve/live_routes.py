"""/v1/live: a WebSocket that becomes one of live/server.py's, once it is known whose it is."""

import asyncio
import contextlib
import importlib.util
from urllib.parse import urlencode

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from sonic_ms.errors import EngineError
from sonic_ms.live.server import BROKEN, REFUSED, read_message
from sonic_ms.serve import forms
from sonic_ms.serve.access import foreign
from sonic_ms.serve.create import check_allowed
from sonic_ms.serve.problems import Problem, of_error

router = APIRouter()
WAYS = ("call", "stream")
FIRST = 10.0  # seconds for the first message


@router.websocket("/v1/live")
async def live(socket: WebSocket):
    """The first message is JSON: {"image": id of an upload, "way": "call" or "stream", "key", "options", "look_ahead",
    "rate", "microphone", "consent"}; then as docs/live.md says."""
    service, code = socket.app.state.service, 1000
    await socket.accept()
    try:
        said = await _first(socket)
        caller = await asyncio.to_thread(_caller, service, socket, said)
        wanted, upload = await asyncio.to_thread(_wanted, service, caller, said)
        way, look_ahead = said.get("way", "stream"), said.get("look_ahead", 0.2)
        address = _address(way, said)
        async with service.live.open(caller, upload, way, wanted.options, look_ahead, wanted.consent) as path:
            await _bridge(socket, path, address)
    except WebSocketDisconnect:
        return
    except Exception as error:
        problem = of_error(error)
        code = REFUSED if problem.status < 500 else BROKEN
        with contextlib.suppress(Exception):
            await socket.send_json({"type": "error", "kind": problem.code, "message": problem.detail, **problem.more})
    with contextlib.suppress(Exception):
        await socket.close(code)


async def _first(socket):
    try:
        text = await asyncio.wait_for(socket.receive_text(), FIRST)
    except asyncio.TimeoutError:
        raise Problem(
            408, "no_message", f"no message came within {FIRST:g} s; the first one says what is wanted"
        ) from None
    except KeyError:
        raise Problem(
            422, "usage_error", "the first message is bytes; expected JSON that says what is wanted"
        ) from None
    said = read_message(text)
    if said.get("way", "stream") not in WAYS:
        raise Problem(422, "usage_error", f"way is {str(said['way'])[:80]!r}; expected call or stream", "way")
    return said


def _caller(service, socket, said):
    """Who asks: by the header, or by the first message, since a browser can send none. Problem 401, 403, 421, 429."""
    if problem := foreign(service.settings, socket.headers):
        raise problem
    if service.settings.local:
        caller = service.local_caller
    else:
        key = said.get("key")
        caller = service.tenants.caller(
            f"Bearer {key}" if isinstance(key, str) else socket.headers.get("authorization")
        )
    service.rate(caller)
    if "create" not in caller.scopes:
        raise Problem(403, "missing_scope", f"the key may not create; it may {', '.join(caller.scopes)}")
    return caller


def _wanted(service, caller, said):
    """(forms.Wanted, the photo's Upload). Problem, EngineError."""
    if said.get("way") == "call" and not importlib.util.find_spec("aiortc"):
        raise EngineError("WebRTC needs aiortc; pip install 'sonic_ms[live]'")
    options = said.get("options", {})
    if not isinstance(options, dict):
        raise Problem(422, "usage_error", "options: expected an object", "options")
    wanted = forms.wanted_live(options, said.get("consent"), service.settings, service.model)
    check_allowed(service, caller, wanted)
    return wanted, service.uploads.need(caller.tenant, "image", str(said.get("image", "")), "image")


def _address(way, said):
    """Where the session's own server serves it. Problem."""
    if way == "call":
        return "/call"
    wanted = {"rate": said.get("rate", 16000), "microphone": said.get("microphone", False)}
    for name, kind in (("rate", int), ("microphone", bool)):
        if type(wanted[name]) is not kind:
            raise Problem(422, "usage_error", f"{name} is {str(wanted[name])[:80]!r}; see docs/live.md", name)
    return "/stream?" + urlencode(wanted)


async def _bridge(socket, path, address):
    """Messages both ways until one side ends; the session's own closing code is passed on."""
    import websockets
    from websockets.asyncio.client import unix_connect

    # close_timeout: a goodbye would wait behind frames that nobody reads, and the process is killed anyway
    async with unix_connect(path, f"ws://live{address}", max_size=None, proxy=None, close_timeout=0.1) as session:

        async def inwards():
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(message.get("code") or 1000)
                data = message.get("bytes")
                data = message["text"] if data is None else data
                await session.send(data)

        async def outwards():
            async for message in session:
                await (socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message))

        tasks = [asyncio.ensure_future(one()) for one in (inwards, outwards)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(websockets.ConnectionClosed):
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
