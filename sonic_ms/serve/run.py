"""The server process: it listens before the model is there, and ends without losing a job."""

import contextlib
import logging
import signal
import socket

import uvicorn

from sonic_ms.errors import OutputError
from sonic_ms.live.server import MOST_MESSAGE
from sonic_ms.serve import logs
from sonic_ms.serve.app import create_app

KEEP_OPEN = 5  # seconds for answers that are on their way, when the server ends


def run(settings, host, port):
    """Serve until SIGTERM or SIGINT. Raises OutputError for an address that is taken."""
    logs.set_up()
    app = create_app(settings)
    config = uvicorn.Config(app, host=host, port=port, log_config=None, access_log=False, server_header=False,
                            timeout_graceful_shutdown=KEEP_OPEN, proxy_headers=False,
                            ws_max_size=MOST_MESSAGE)  # fmt: skip
    listening = listen(host, port)
    name = f"[{host}]" if ":" in host else host
    print(f"serving {app.state.service.model} at http://{name}:{listening.getsockname()[1]}", flush=True)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    Server(config, app.state.service).run(sockets=[listening])


class Server(uvicorn.Server):
    """uvicorn's, which would raise the signal that ended it once more; to be stopped is no failure of a service."""

    def __init__(self, config, service):
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig, frame):
        self._service.drain()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self):
        before = {name: signal.signal(name, self.handle_exit) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def listen(host, port):
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sends at once only through sockets that say they are TCP: without that every answer waits 40 ms
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        raise OutputError(f"address {host}:{port}: cannot be listened at ({error}); choose another --port") from error
    return listening
