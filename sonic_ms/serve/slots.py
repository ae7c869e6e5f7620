"""A slot: a thread that claims jobs and the worker that makes them. What ends a job is here."""

import contextlib
import logging
import os
import queue
import secrets
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout

from sonic_ms.files.digest import sha256_of
from sonic_ms.serve.files import remove
from sonic_ms.serve.jobs import LEASE
from sonic_ms.serve.process import Worker, arguments_of

log = logging.getLogger("sonic_ms.serve")

LOOK = 0.5  # seconds between two looks at the table, when nobody wakes us
PATIENCE = 0.8  # seconds for a job to end by itself after it was cancelled, then its process gets SIGTERM
REST = (0.5, 2.0, 10.0, 30.0)  # seconds before a worker is started again after it broke so many times in a row


class Slots:
    """All slots of a server.

    jobs: jobs.Jobs. folders: files.Folders. watch: called with (event, Job or None, dict), for metrics and logs.
    """

    def __init__(self, settings, jobs, folders, watch=lambda event, job, more: None):
        self.settings, self.jobs, self.folders, self.watch = settings, jobs, folders, watch
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.threads = []
        self.stopping = threading.Event()
        self.slots = [Slot(self, number) for number in range(settings.slots)]

    def start(self):
        """Take back what a server that died left, and begin."""
        self.folders.clear_work()
        self.jobs.take_back(everything=True)
        self.jobs.listeners.append(lambda _: self.wake())
        for slot in self.slots:
            slot.thread.start()

    def wake(self):
        for slot in self.slots:
            slot.inbox.put((None, {"is": "look"})) if slot.inbox.empty() else None

    @property
    def ready(self):
        """How many workers have their model."""
        workers = [slot.worker for slot in self.slots]
        return sum(worker is not None and worker.ready for worker in workers)

    @property
    def problem(self):
        """{code, message, status} when no worker gets a model, else None."""
        faults = [slot.fault for slot in self.slots]
        return faults[0] if all(faults) else None

    def look(self, timeout, **order):
        """What a worker says to a look, or None when there is none that answers in time."""
        worker = next((slot.worker for slot in self.slots if slot.worker and slot.worker.ready), None)
        if worker is None:
            return None
        try:
            return worker.look(**order).result(timeout)
        except (EOFError, TimeoutError, FutureTimeout):  # two classes before Python 3.11
            return None

    def stop(self):
        """End the workers; what they were making goes back into the queue."""
        self.stopping.set()
        self.wake()
        for slot in self.slots:
            if slot.thread.is_alive():
                slot.thread.join()


class Slot:
    """One thread, one worker process, up to `lanes` jobs in it."""

    def __init__(self, slots, number):
        self.all, self.settings, self.jobs = slots, slots.settings, slots.jobs
        self.inbox = queue.Queue()
        self.worker = None
        self.fault = None  # why the last worker got no model
        self.broken, self.start_at, self.renew_at = 0, 0.0, 0.0
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"slot-{number}")

    def _run(self):
        while not self.all.stopping.is_set():
            try:
                self._step()
            except Exception:  # a full disk, a locked database: the next step may do better
                log.exception("a slot stumbled")
                time.sleep(LOOK)
        if self.worker:
            self._drop("the server was stopped", counted=False)

    def _step(self):
        now = time.monotonic()
        if self.worker is None and now >= self.start_at:
            self.worker = Worker(arguments_of(self.settings), self.inbox)
        worker = self.worker
        if worker and worker.ready:
            while self._has_room(worker) and (job := self.jobs.claim(self.all.owner, bool(worker.jobs))):
                self._begin(worker, job)
        with contextlib.suppress(queue.Empty):
            sender, message = self.inbox.get(timeout=LOOK)
            if sender is not None and sender is self.worker:
                self._hear(sender, message)
        self._look_after()

    def _has_room(self, worker):
        """Whether another job may begin; a second attempt is alone in its process."""
        alone = any(job.attempt > 1 for job in worker.jobs.values())
        return len(worker.jobs) < self.settings.lanes and not alone

    def _begin(self, worker, job):
        worker.jobs[job.id] = job
        folders = self.all.folders
        self.all.watch("started", job, {})
        image, audio = (str(folders.upload(job.tenant, name)) for name in (job.image, job.audio))
        output = str(folders.work(job) / "video.mp4")
        names = dict(zip((image, audio), job.extra["names"], strict=True)) | {output: "video.mp4"}
        worker.tell(do="make", job=job.id, image=image, audio=audio, output=output, options=job.options, names=names)

    def _hear(self, worker, message):
        if message is None:
            how = worker.ended
            self.broken += 1
            self._drop(how, counted=True)
            self.start_at = time.monotonic() + REST[min(self.broken, len(REST)) - 1]
            self.all.watch("worker_ended", None, {"how": how})
        elif message["is"] == "ready":
            worker.ready, worker.engine = True, message["engine"]
            self.fault = None
        elif message["is"] == "broken":
            self.fault = {key: message[key] for key in ("code", "message", "status")}
            log.error("no model: %s", message["message"])
        elif job := worker.jobs.get(message["job"]):
            getattr(self, f"_{message['is']}")(worker, job, message)

    def _progress(self, worker, job, message):
        self.jobs.progress(job, message["stage"], message["done"], message["total"])

    def _done(self, worker, job, message):
        made = self.all.folders.work_of(job) / "video.mp4"
        name = f"{job.id}-{job.attempt}.mp4"
        final = self.all.folders.result(job.tenant, name)
        digest, size = sha256_of(made), os.path.getsize(made)
        _to_the_disk(made)
        os.replace(made, final)
        more = {key: value for key, value in message.items() if key not in ("is", "job")}
        result = {"file": name, "bytes": size, "sha256": digest, **more}
        self.broken = 0
        kept = self.jobs.finish(job, "completed", result)
        if not kept:
            remove(final)
        self._forget(worker, job)

    def _failed(self, worker, job, message):
        error = {key: message[key] for key in ("code", "message", "status")}
        if message["again"]:
            self.jobs.give_back(job, error["message"])
        else:
            state = "canceled" if error["code"] == "canceled" else "failed"
            self.jobs.finish(job, state, error=error)
        self._forget(worker, job)

    def _forget(self, worker, job):
        worker.jobs.pop(job.id, None)
        worker.kill_at.pop(job.id, None)
        self.all.folders.drop_work(job)
        self.all.watch("ended", self.jobs.current(job), {})

    def _look_after(self):
        """Renew leases; cancel what is to be cancelled."""
        worker, now = self.worker, time.monotonic()
        if not worker or not worker.jobs:
            return
        if now >= self.renew_at:
            self.renew_at = now + LEASE / 3
            self.jobs.renew(self.all.owner, list(worker.jobs))
        for name in self.jobs.canceling(list(worker.jobs)) - set(worker.kill_at):
            worker.tell(do="cancel", job=name)
            worker.kill_at[name] = now + PATIENCE
        if any(now >= at for at in worker.kill_at.values()):
            self._drop("another job's process had to be ended", counted=False)

    def _drop(self, reason, counted):
        """End the worker; its jobs go back into the queue, or end as canceled."""
        worker, self.worker = self.worker, None
        worker.end()
        for job in list(worker.jobs.values()):
            self.jobs.give_back(job, reason, counted)
            self._forget(worker, job)


def _to_the_disk(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
