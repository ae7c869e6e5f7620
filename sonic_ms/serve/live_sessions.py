"""Live sessions of the service: a process each, from the first message to the last, and what its tenant used."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time

from sonic_ms.media.audio import FPS
from sonic_ms.serve import audit
from sonic_ms.serve.files import upload_key
from sonic_ms.serve.problems import Problem

log = logging.getLogger("sonic_ms.serve")

WORKER = (sys.executable, "-m", "sonic_ms.serve.live_worker")
START = 60.0  # seconds until the process has its model and has drawn nothing yet


class LiveSessions:
    """Who speaks now. A session counts as a job of its tenant that runs; what it showed counts as seconds of video."""

    def __init__(self, service, most):
        self.service, self.most = service, most
        self._tenants = []  # of the sessions that run

    def count(self, tenant=None):
        """Sessions that run, of a tenant or of all."""
        return len(self._tenants) if tenant is None else self._tenants.count(tenant)

    @contextlib.asynccontextmanager
    async def open(self, caller, upload, way, options, look_ahead, consent):
        """Yields the path of the unix socket at which live/server.py serves `way`, "call" or "stream". Problem."""
        self._admit(caller)
        self._tenants.append(caller.tenant)
        name, started = f"live_{secrets.token_hex(12)}", time.monotonic()
        try:
            await asyncio.to_thread(self._begun, caller, name, upload, options, consent)
            async with self._process(upload, way, options, look_ahead) as socket:
                yield socket
        finally:
            self._tenants.remove(caller.tenant)
            # shielded: a request that is cancelled meanwhile would take the note of its end along
            await asyncio.shield(asyncio.to_thread(self._ended, caller, name, time.monotonic() - started))

    def _admit(self, caller):
        if self.count() >= self.most:
            raise Problem(503, "busy", f"{self.most} live sessions run already, which is the limit; try again later")
        self.service.check_quota(caller, FPS)

    @contextlib.asynccontextmanager
    async def _process(self, upload, way, options, look_ahead):
        """Path of the socket of a process that has its model and its photo."""
        settings, files = self.service.settings, self.service.files
        with await asyncio.to_thread(self.service.folders.look) as scratch, _handle(scratch) as handle:
            # by its handle: a socket's path has at most 107 bytes, and a data folder may lie deep
            socket = f"/proc/self/fd/{handle}/socket"
            image = await asyncio.to_thread(files.fetch, upload_key(upload.tenant, upload.id), scratch)
            order = {
                "model": settings.model, "engine": settings.engine, "bundle": settings.bundle,
                "precision": settings.precision, "memory": settings.worker_memory, "image": os.path.abspath(image),
                "name": upload.name, "options": options, "look_ahead": look_ahead, "way": way, "socket": socket,
                "producer": settings.producer,
            }  # fmt: skip
            process = subprocess.Popen(
                [*WORKER, json.dumps(order)], stdout=subprocess.PIPE, start_new_session=True, pass_fds=(handle,)
            )
            try:
                await _ready(process)
                yield socket
            finally:
                await asyncio.shield(asyncio.to_thread(_end, process))

    def _begun(self, caller, name, upload, options, consent):
        with self.service.database.transaction() as connection:
            audit.append(
                connection, caller.tenant, caller.key, "live.started", name, image=upload.sha256, consent=consent,
                consent_version=self.service.settings.consent_version, visible_label=options.get("visible_label"),
            )  # fmt: skip

    def _ended(self, caller, name, seconds):
        with self.service.database.transaction() as connection:
            self.service.use(connection, caller.tenant, seconds, seconds)
            audit.append(connection, caller.tenant, "service", "live.ended", name, seconds=round(seconds, 1))
        log.info("live session ended", extra={"event": "live.ended", "job_id": name, "tenant": caller.tenant})


@contextlib.contextmanager
def _handle(folder):
    """Number of an open folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield handle
    finally:
        os.close(handle)


async def _ready(process):
    """Wait for a process's one line. Problem."""
    try:
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), START)
        said = json.loads(line)
    except (asyncio.TimeoutError, ValueError):
        raise Problem(503, "not_ready", "the live session's process did not start; try again") from None
    if said["is"] == "broken":
        raise Problem(said["status"], said["code"], said["message"])


def _end(process):
    """Its native code hears no request, and nothing of it is to be kept."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
