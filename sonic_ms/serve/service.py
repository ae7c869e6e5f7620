"""Everything one server holds: the database, the queue, the slots, and what watches them."""

import fcntl
import logging
import os
import threading

from sonic_ms.errors import UsageError
from sonic_ms.serve.database import Database
from sonic_ms.serve.events import Hub
from sonic_ms.serve.files import Folders, remove
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.slots import Slots
from sonic_ms.serve.tenants import Tenants
from sonic_ms.serve.uploads import Uploads

log = logging.getLogger("sonic_ms.serve")


class Service:
    """model: the name in pipeline.MODELS of what is served."""

    def __init__(self, settings, model):
        self.settings, self.model = settings, model
        self.folders = Folders(settings.data)
        self._lock = _only_one(settings.data)
        self.database = Database(settings.data)
        self.jobs = Jobs(self.database, settings.keep_results)
        self.jobs.slots = settings.slots
        self.uploads = Uploads(settings, self.database, self.folders)
        self.tenants = Tenants(self.database)
        self.hub = Hub()
        self.slots = Slots(settings, self.jobs, self.folders, self.watch)
        self.draining = threading.Event()
        if settings.local:
            self.local_caller = self.tenants.local()

    def start(self):
        self.jobs.listeners.append(self.hub.changed)
        self.slots.start()

    def stop(self):
        """What is being made goes back into the queue."""
        self.draining.set()
        self.slots.stop()
        self.database.close()
        os.close(self._lock)

    def add(self, caller, wanted, uploads, key, fingerprint, request_id, traceparent):
        """(Job, whether it is new) in the queue. key: an Idempotency-Key."""
        extra = {"prompt": wanted.prompt, "metadata": wanted.metadata, "webhook_url": wanted.webhook_url,
                 "consent": wanted.consent, "request_id": request_id, "traceparent": traceparent,
                 "key": caller.key}  # fmt: skip
        image, audio = uploads["input_reference"].id, uploads["audio_reference"].id
        return self.jobs.add(caller.tenant, self.model, wanted.options, image, audio, extra), True

    def store_upload(self, caller, kind, file):
        return self.uploads.store(caller.tenant, kind, file.file, file.filename, True, "file")

    def delete(self, tenant, name):
        """Cancel a job if need be, and forget it with its files; a running one is forgotten when it has ended."""
        self.jobs.cancel(tenant, name)
        job = self.jobs.get(tenant, name)
        if job and self.jobs.remove(tenant, name):
            self.forget_files(job)

    def forget_files(self, job):
        if job.result:
            remove(self.folders.result(job.tenant, job.result["file"]))

    def expire(self, job):
        """The result of a job is gone: its row says so."""

    def watch(self, event, job, more):
        """What the slots tell."""

    def answered(self, scope, route, status, seconds, request_id):
        """A request was answered."""


def _only_one(data):
    """A lock that one server of a data folder holds. Raises UsageError when another has it."""
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"data folder {data} is used by another server; stop that, or give another --data") from None
    return handle
