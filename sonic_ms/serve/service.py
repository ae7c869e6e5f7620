"""Everything one server holds: the database, the queue, the slots, and what watches them."""

import datetime
import fcntl
import json
import logging
import os
import threading
import time

from anyio import CapacityLimiter
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from sonic_ms.errors import UsageError
from sonic_ms.serve import audit, clamav, webhooks
from sonic_ms.serve.database import Database
from sonic_ms.serve.events import Hub
from sonic_ms.serve.files import Folders, remove
from sonic_ms.serve.janitor import Janitor
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.metrics import Metrics
from sonic_ms.serve.problems import Problem
from sonic_ms.serve.slots import Slots
from sonic_ms.serve.tenants import Tenants
from sonic_ms.serve.tracing import open_tracing
from sonic_ms.serve.uploads import Uploads

log = logging.getLogger("sonic_ms.serve")

MAKING = 8  # requests for a video that are worked on at once; others wait for their turn
LOOK = 5.0  # seconds that a request waits for the check of its files; then the job itself will tell
KEPT_LOOKS = 1000  # results of checks that are remembered


class Service:
    """model: the name in pipeline.MODELS of what is served."""

    def __init__(self, settings, model):
        self.settings, self.model = settings, model
        self.tracing = open_tracing()
        self.folders = Folders(settings.data)
        self._lock = only_one(settings.data)
        self.database = Database(settings.data)
        self.jobs = Jobs(self.database, settings.keep_results)
        self.jobs.slots = settings.slots
        self.uploads = Uploads(settings, self.database, self.folders)
        self.tenants = Tenants(self.database)
        self.hub = Hub()
        self.making = CapacityLimiter(MAKING)
        self.slots = Slots(settings, self.jobs, self.folders, self.watch)
        self.metrics = Metrics(self)
        self.sender = webhooks.Sender(
            self.database, self.tenants.webhook_secret, settings.private_webhooks, settings.webhook_pauses,
            lambda result: self.metrics.webhooks.labels(result).inc(),
        )  # fmt: skip
        self.janitor = Janitor(self)
        self.draining = threading.Event()
        self._rates = FixedWindowRateLimiter(MemoryStorage())
        self._looks, self._looking = {}, threading.Semaphore(2)
        self.local_caller = self.tenants.local() if settings.local else None

    def start(self):
        self.jobs.listeners.append(self.hub.changed)
        self.jobs.on_end += [self._count, webhooks.remember]
        self.janitor.start()
        self.slots.start()
        self.sender.start()

    def drain(self):
        """From now on not ready; streams of events end."""
        self.draining.set()
        self.hub.wake_all()

    def stop(self):
        """What is being made goes back into the queue."""
        self.drain()
        self.slots.stop()
        self.sender.stop()
        self.janitor.stop()
        self.tracing.stop()
        self.database.close()
        os.close(self._lock)

    # -- what a request does

    def add(self, caller, wanted, uploads, key, fingerprint, request_id, traceparent):
        """(Job, whether it is new) in the queue. key: an Idempotency-Key."""
        image, audio = uploads["input_reference"], uploads["audio_reference"]
        known = self._known(caller.tenant, key, fingerprint)
        if known:
            return known, False
        frames = self.check(image, audio, wanted.options)
        extra = {"prompt": wanted.prompt, "metadata": wanted.metadata, "webhook_url": wanted.webhook_url,
                 "consent": wanted.consent, "request_id": request_id, "traceparent": traceparent, "frames": frames,
                 "key": caller.key, "names": [image.name, audio.name]}  # fmt: skip

        def within(connection, name):
            self._quota(connection, caller, frames)
            if key:
                self._keep_key(connection, caller.tenant, key, fingerprint, name)
            audit.append(
                connection, caller.tenant, caller.key, "job.created", name, image=image.sha256, audio=audio.sha256,
                consent=wanted.consent, consent_version=self.settings.consent_version,
                visible_label=wanted.options.get("visible_label"),
            )  # fmt: skip

        try:
            job = self.jobs.add(caller.tenant, self.model, wanted.options, image.id, audio.id, extra, within)
        except KeyTaken:
            return self._known(caller.tenant, key, fingerprint), False
        self._log("accepted", job)
        return job, True

    def _known(self, tenant, key, fingerprint):
        """The job that a key made before, or None. Problem 422 when that was another request, 410 when it is gone."""
        row = key and self.database.row("SELECT * FROM idempotency WHERE tenant = ? AND key = ?", tenant, key)
        if not row:
            return None
        if row["fingerprint"] != fingerprint:
            raise Problem(422, "idempotency_key_reused", f"Idempotency-Key {key[:80]!r} was used for another request; "
                          "take a new one")  # fmt: skip
        if job := self.jobs.get(tenant, row["job"]):
            return job
        raise Problem(410, "deleted", f"Idempotency-Key {key[:80]!r} made {row['job']}, which was deleted")

    @staticmethod
    def _keep_key(connection, tenant, key, fingerprint, name):
        row = (tenant, key, fingerprint, name, time.time())
        if not connection.execute("INSERT OR IGNORE INTO idempotency VALUES (?, ?, ?, ?, ?)", row).rowcount:
            raise KeyTaken

    def _quota(self, connection, caller, frames):
        limits, tenant = caller.limits, caller.tenant
        waiting = connection.execute(
            "SELECT count(*) AS n FROM jobs WHERE tenant = ? AND state IN ('queued', 'in_progress')", (tenant,)
        ).fetchone()["n"]
        if waiting >= limits.queued:
            raise Problem(429, "too_many_jobs", f"{waiting} jobs wait or run, which is the limit; wait for one to end")
        row = connection.execute("SELECT * FROM usage WHERE tenant = ? AND day = ?", (tenant, today())).fetchone()
        seconds = (row["video_seconds"] if row else 0) + (frames or 0) / 25
        if seconds > limits.video_seconds_a_day:
            raise Problem(429, "daily_limit", f"{limits.video_seconds_a_day:g} seconds of video a day are the limit; "
                          "go on tomorrow", headers={"Retry-After": "3600"})  # fmt: skip

    def check(self, image, audio, options):
        """How many frames a request will give, None when no worker could look. Problem for what it could not make."""
        chosen = [options.get(name) for name in ("face", "face_box", "duration", "max_audio_seconds")]
        known = (image.sha256, audio.sha256, json.dumps(chosen))
        if known not in self._looks:
            paths = {str(self.folders.upload(one.tenant, one.id)): one.name for one in (image, audio)}
            found = self._look(image=next(iter(paths)), audio=list(paths)[1], options=options, names=paths)
            if found is None:
                return None
            if "error" in found:
                error = found["error"]
                raise Problem(error["status"], error["code"], error["message"])
            if len(self._looks) >= KEPT_LOOKS:
                self._looks.pop(next(iter(self._looks)), None)
            self._looks[known] = found["frames"]
        return self._looks.get(known)

    def faces(self, image):
        """{size, faces} of an upload. Problem."""
        path = str(self.folders.upload(image.tenant, image.id))
        found = self._look(image=path, audio=None, options={}, names={path: image.name})
        if found is None:
            raise Problem(503, "not_ready", "no worker is ready to look at the photo; try again")
        if "error" in found:
            error = found["error"]
            raise Problem(error["status"], error["code"], error["message"], "input_reference")
        return {"width": found["size"][0], "height": found["size"][1], "faces": found["faces"]}

    def _look(self, **order):
        if not self._looking.acquire(timeout=LOOK):
            return None
        try:
            return self.slots.look(LOOK, **order)
        finally:
            self._looking.release()

    def store_upload(self, caller, kind, file):
        """Keep a file for several jobs; Upload."""
        return self.store(caller, kind, file, True, "file")

    def store(self, caller, kind, file, kept, param):
        """Keep a file of a request; Upload. Problem, also for what the tenant or the disk has no room for."""
        row = self.database.row("SELECT sum(bytes) AS n FROM uploads WHERE tenant = ?", caller.tenant)
        if (row["n"] or 0) + self.bytes_of_results(caller.tenant) > caller.limits.bytes:
            raise Problem(413, "storage_limit", f"{caller.limits.bytes >> 20} MB of files are the limit; delete some")
        if self.bytes_used() > self.settings.max_storage:
            raise Problem(507, "storage_full", "the service has no room for more files; try later")
        if self.settings.clamav:
            clamav.check(self.settings.clamav, file.file, param)
        return self.uploads.store(caller.tenant, kind, file.file, file.filename, kept, param)

    def bytes_of_results(self, tenant=None):
        where, values = ("tenant = ? AND ", (tenant,)) if tenant else ("", ())
        row = self.database.row(
            f"SELECT sum(json_extract(result, '$.bytes')) AS n FROM jobs WHERE {where}state = 'completed'", *values
        )
        return row["n"] or 0

    def bytes_used(self):
        row = self.database.row("SELECT sum(bytes) AS n FROM uploads")
        return (row["n"] or 0) + self.bytes_of_results()

    def rate(self, caller):
        """Count a request. Problem 429."""
        if not self._rates.hit(RateLimitItemPerMinute(caller.limits.requests_a_minute), caller.tenant):
            raise Problem(429, "too_many_requests", f"{caller.limits.requests_a_minute} requests a minute are the "
                          "limit; wait a little", headers={"Retry-After": "10"})  # fmt: skip

    def delete(self, tenant, name, actor):
        """Forget a job with its files, at once for its tenant; one that runs ends first."""
        with self.database.transaction() as connection:
            audit.append(connection, tenant, actor, "job.deleted", name)
        job = self.jobs.delete(tenant, name)
        if job and job.ended:
            self._remove_files(job)

    def forget(self, job):
        """Finish what `delete` began with a job that was running then."""
        if job := self.jobs.delete(job.tenant, job.id):
            self._remove_files(job)

    def _remove_files(self, job):
        """Remove the files of a job that has no row any more."""
        if job.result:
            remove(self.folders.result(job.tenant, job.result["file"]))
        for name in (job.image, job.audio):
            upload = self.uploads.get(job.tenant, name)
            if upload and not upload.kept and not self.uploads.in_use(job.tenant, name):
                self.uploads.remove(job.tenant, name)

    def expire(self, job):
        """The result of a job goes: first the row says so."""
        with self.database.transaction() as connection:
            connection.execute("UPDATE jobs SET state = 'expired' WHERE id = ? AND state = 'completed'", (job.id,))
            audit.append(connection, job.tenant, "service", "job.expired", job.id)
        remove(self.folders.result(job.tenant, job.result["file"]))

    # -- what is told of it

    def _count(self, connection, job):
        """Usage and audit of a job that ends, in the same transaction."""
        result = job.result
        seconds = result["frames"] / result["fps"] if result else 0
        connection.execute(
            "INSERT INTO usage VALUES (?, ?, 1, ?, ?) ON CONFLICT (tenant, day) DO UPDATE SET jobs = jobs + 1, "
            "video_seconds = video_seconds + excluded.video_seconds, "
            "work_seconds = work_seconds + excluded.work_seconds",
            (job.tenant, today(), seconds, result.get("work_seconds", 0)),
        )
        audit.append(connection, job.tenant, "service", f"job.{job.state}", job.id, sha256=result.get("sha256"))

    def watch(self, event, job, more):
        """What the slots tell: for metrics and the log."""
        if event == "started":
            self.metrics.wait.labels(job.model).observe(max(0.0, time.time() - job.created_at))
        elif event == "ended" and job.ended:
            self.metrics.ended(job)
            self.tracing.job(job)
            if job.cancel == 2:
                self.forget(job)
        elif event == "worker_ended":
            self.metrics.restarts.inc()
        self._log(event, job, **more)

    def _log(self, event, job, **more):
        ids = {}
        if job:
            trace = (job.extra.get("traceparent") or "").split("-")
            ids = {"job_id": job.id, "tenant": job.tenant, "state": job.state,
                   "request_id": job.extra.get("request_id"),
                   "trace_id": trace[1] if len(trace) > 2 else None}  # fmt: skip
        words = " ".join(f"{key}={value}" for key, value in more.items())
        log.info("%s %s", event, words, extra={"event": event, **ids})

    def answered(self, method, route, status, seconds, request_id):
        """A request was answered."""
        self.metrics.requests.labels(route, method, status).inc()
        self.metrics.seconds.labels(route, method).observe(seconds)
        log.info("%s %s", method, route, extra={"request_id": request_id, "route": route, "method": method,
                                                "status": status, "seconds": round(seconds, 4)})  # fmt: skip


class KeyTaken(Exception):
    """Another request with the same Idempotency-Key was quicker."""


def today():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def only_one(data):
    """A lock that one server of a data folder holds. Raises UsageError when another has it."""
    handle = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"data folder {data} is used by another server; stop that, or give another --data") from None
    return handle
