"""A slot: a thread that claims jobs and the worker that makes them. What ends a job is here."""

import contextlib
import logging
import os
import queue
import secrets
import socket
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout

from sonic_ms.serve.files import discard, result_key
from sonic_ms.serve.jobs import LEASE
from sonic_ms.serve.problems import Unavailable
from sonic_ms.serve.process import Worker, arguments_of
from sonic_ms.serve.transfers import VIDEO, Move, fetch_inputs, store_result

log = logging.getLogger("sonic_ms.serve")

LOOK = 0.5  # seconds between two looks at the table, when nobody wakes us
PATIENCE = 0.8  # seconds for a job to end by itself after it was cancelled, then its process gets SIGTERM
LAST = 10.0  # seconds that a server which is stopped goes on storing what is made
REST = (0.5, 2.0, 10.0, 30.0)  # seconds before a worker is started again after it broke so many times in a row


class Slots:
    """All slots of a server.

    jobs: jobs.Jobs. folders: files.Folders. files: a file store. watch: called with (event, Job or None, dict), for
    metrics and logs.
    """

    def __init__(self, settings, jobs, folders, files, watch=lambda event, job, more: None):
        self.settings, self.jobs, self.folders, self.files, self.watch = settings, jobs, folders, files, watch
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.threads = []
        self.stopping = threading.Event()
        self.slots = [Slot(self, number) for number in range(settings.slots)]

    def start(self):
        """Take back what a server that died left, and begin."""
        self.folders.clear_work()
        self.jobs.take_back(everything=not self.jobs.database.shared)
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

    def new_worker(self, inbox):
        """A worker of the kind that the server was set up for; see process.Worker."""
        settings = self.settings
        if settings.workers == "ray":
            from sonic_ms.serve.actors import ActorWorker

            return ActorWorker(settings, self.files.address, settings.soc, inbox)
        return Worker(arguments_of(settings), inbox)

    def look(self, timeout, keys, names, options):
        """What a worker says to a look at files of the store, the photo and perhaps the recording, or None when there
        is none that answers in time. names: what their sender calls them. Raises Unavailable."""
        worker = next((slot.worker for slot in self.slots if slot.worker and slot.worker.ready), None)
        if worker is None:
            return None
        try:
            if worker.moves_files:
                return worker.look(keys=keys, names=names, options=options).result(timeout)
            with self.folders.look() as folder:
                paths = [str(self.files.fetch(key, folder)) for key in keys]
                order = {"image": paths[0], "audio": paths[1] if len(paths) > 1 else None}
                return worker.look(**order, options=options, names=dict(zip(paths, names))).result(timeout)
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
        self.fetching, self.storing = {}, {}  # id -> Move of the inputs, or of the video
        self.unsaid = []  # [(Job, function)]: ends that the table does not know yet
        self.fault = None  # why the last worker got no model
        self.broken, self.start_at, self.renew_at = 0, 0.0, 0.0
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"slot-{number}")

    def _run(self):
        while not self.all.stopping.is_set():
            self._try()
        if self.worker:
            self._drop("the server was stopped", counted=False)
        end = time.monotonic() + LAST
        while (self.storing or self.unsaid) and time.monotonic() < end:  # what is made already is not made again
            self._try()
        for move in self.storing.values():
            move.call_off()
            self._settle(move.job, self._given_back(move.job, "the server was stopped", counted=False))
        with contextlib.suppress(Exception):  # else its lease ends
            self._say()

    def _try(self):
        try:
            self._step()
        except Unavailable as error:
            log.warning("a slot waits: %s", error)
            time.sleep(LOOK)
        except Exception:  # a full disk, a locked database: the next step may do better
            log.exception("a slot stumbled")
            time.sleep(LOOK)

    def _step(self):
        self._say()
        stopping = self.all.stopping.is_set()
        now = time.monotonic()
        if self.worker is None and now >= self.start_at and not stopping:
            self.worker = self.all.new_worker(self.inbox)
        worker = self.worker
        if worker and worker.ready:
            while self._has_room(worker) and (job := self.jobs.claim(self.all.owner, bool(worker.jobs))):
                self._begin(worker, job)
        with contextlib.suppress(queue.Empty):
            sender, message = self.inbox.get(timeout=LOOK)
            if isinstance(sender, Move):
                self._moved(sender, message)
            elif sender is not None and sender is self.worker:
                self._hear(sender, message)
        self._look_after()

    def _has_room(self, worker):
        """Whether another job may begin; a second attempt is alone in its process."""
        alone = any(job.attempt > 1 for job in worker.jobs.values())
        return len(worker.jobs) < self.settings.lanes and len(self.storing) <= self.settings.lanes and not alone

    def _begin(self, worker, job):
        worker.jobs[job.id] = job
        self.all.watch("started", job, {})
        if worker.moves_files:
            return worker.tell(do="make", of=job, options=job.options, names=job.extra["names"])
        files, folders = self.all.files, self.all.folders
        self.fetching[job.id] = Move(job, lambda: fetch_inputs(files, job, folders.work(job)), self.inbox)

    def _moved(self, move, given):
        """The files of a job are where they are wanted, or cannot get there."""
        job, worker = move.job, self.worker
        if self.fetching.get(job.id) is move:
            del self.fetching[job.id]
            if isinstance(given, dict):
                self._failed(worker, job, given)
            else:
                output = str(self.all.folders.work_of(job) / VIDEO)
                names = dict(zip(given, job.extra["names"], strict=True)) | {output: VIDEO}
                image, audio = given
                worker.tell(do="make", job=job.id, image=image, audio=audio, output=output, options=job.options,
                            names=names)  # fmt: skip
        elif self.storing.get(job.id) is move:
            del self.storing[job.id]
            if given.get("is") == "failed":
                self._failed(worker, job, given)
            else:
                self._settle(job, lambda: self._completed(job, given))

    def _hear(self, worker, message):
        if message is None:
            how = worker.ended
            self.broken += 1
            self._drop(how, counted=not worker.blameless)
            self.start_at = time.monotonic() + REST[min(self.broken, len(REST)) - 1]
            self.all.watch("worker_ended", None, {"how": how})
        elif message["is"] == "ready":
            worker.ready, worker.engine = True, message["engine"]
            self.fault = None
        elif message["is"] == "broken":
            before, self.fault = self.fault, {key: message[key] for key in ("code", "message", "status")}
            if self.fault != before:
                log.error("no model: %s", message["message"])
        elif job := worker.jobs.get(message["job"]):
            getattr(self, f"_{message['is']}")(worker, job, message)

    def _progress(self, worker, job, message):
        self.jobs.progress(job, message["stage"], message["done"], message["total"])

    def _done(self, worker, job, message):
        """The video is made: the worker is free of it, and it goes into the store."""
        worker.jobs.pop(job.id)
        worker.kill_at.pop(job.id, None)
        self.broken = 0
        more = {key: value for key, value in message.items() if key not in ("is", "job")}
        if worker.moves_files:
            return self._settle(job, lambda: self._completed(job, more))
        made = self.all.folders.work_of(job) / VIDEO
        self.storing[job.id] = Move(job, lambda: store_result(self.all.files, job, made) | more, self.inbox)

    def _completed(self, job, result):
        if not self.jobs.finish(job, "completed", result):
            discard(self.all.files, result_key(job.tenant, result["file"]))

    def _failed(self, worker, job, message):
        error = {key: message[key] for key in ("code", "message", "status")}
        if message["again"]:
            self._settle(job, self._given_back(job, error["message"], counted=True))
        else:
            state = "canceled" if error["code"] == "canceled" else "failed"
            self._settle(job, lambda: self.jobs.finish(job, state, error=error))

    def _given_back(self, job, reason, counted):
        return lambda: self.jobs.give_back(job, reason, counted)

    def _settle(self, job, say):
        """A job is out of our hands; say() writes so, again and again while the database cannot be reached."""
        if self.worker:
            self.worker.jobs.pop(job.id, None)
            self.worker.kill_at.pop(job.id, None)
        self.unsaid.append((job, say))
        self._say()

    def _say(self):
        while self.unsaid:
            job, say = self.unsaid[0]
            try:
                say()
            except Unavailable:
                raise
            except Exception:  # what cannot be written now never will; its lease ends
                log.exception("the end of %s", job.id)
            self.unsaid.pop(0)
            self.all.folders.drop_work(job)
            self.all.watch("ended", self.jobs.current(job), {})

    def _look_after(self):
        """Renew leases; cancel what is to be cancelled."""
        worker, now = self.worker, time.monotonic()
        ours = [*(worker.jobs if worker else ()), *self.storing]
        if not ours:
            return
        if now >= self.renew_at:
            self.renew_at = now + LEASE / 3
            self.jobs.renew(self.all.owner, ours)
        for name in self.jobs.canceling(ours):
            if move := self.fetching.pop(name, None) or self.storing.pop(name, None):
                move.call_off()
                self._settle(move.job, self._given_back(move.job, "canceled", counted=False))
            elif name not in worker.kill_at:
                worker.tell(do="cancel", job=name)
                worker.kill_at[name] = now + PATIENCE
        if worker and any(now >= at for at in worker.kill_at.values()):
            self._drop("another job's process had to be ended", counted=False)

    def _drop(self, reason, counted):
        """End the worker; its jobs go back into the queue, or end as canceled."""
        worker, self.worker = self.worker, None
        worker.end()
        for job in worker.jobs.values():
            if move := self.fetching.pop(job.id, None):
                move.call_off()
            self.unsaid.append((job, self._given_back(job, reason, counted)))
        self._say()
