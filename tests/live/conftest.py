"""A server in a thread, with sessions that draw at once or with the real model."""

import contextlib
import socket
import threading
import time

import pytest

from sonic_ms.live.session import LiveSession
from tests.support.live_speech import PlainSpeaker


@contextlib.contextmanager
def served(open_session, most=3):
    """Address of a running server: "127.0.0.1:PORT"."""
    import uvicorn

    from sonic_ms.live.server import MOST_MESSAGE, create_app

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(
        create_app(open_session, most), "127.0.0.1", port, log_level="error", ws_max_size=MOST_MESSAGE
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def sessions():
    """Every session that the plain server opened."""
    return []


@pytest.fixture
def plain_server(sessions):
    def open_session(microphone):
        session = LiveSession(
            PlainSpeaker(), lambda square, index: square, (4, 4), "0" * 32, microphone=microphone, most_queued=10
        )
        sessions.append(session)
        return session

    with served(open_session) as address:
        yield address
