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
from sonic_ms.serve import audit, clamav, idempotency, storage, webhooks
from sonic_ms.serve.database import open_database
from sonic_ms.serve.events import Follower, Hub
from sonic_ms.serve.files import Folders, discard, open_files, result_key, upload_key
from sonic_ms.serve.janitor import Janitor
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.live_sessions import LiveSessions
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
        self.files = open_files(settings.files or settings.data)
        self._lock = only_one(settings.data)
        self.database = open_database(settings.database, settings.data)
        self.jobs = Jobs(self.database, settings.keep_results)
        self.jobs.slots = settings.slots
        self.uploads = Uploads(settings, self.database, self.files)
        self.tenants = Tenants(self.database)
        self.hub = Hub()
        self.follower = Follower(self.database, self.hub)
        self.making = CapacityLimiter(MAKING)
        self.slots = Slots(settings, self.jobs, self.folders, self.files, self.watch)
        self.live = LiveSessions(self, settings.live_sessions)
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
        if self.database.shared:
            self.follower.start()

    def drain(self):
        """From now on not ready; streams of events end."""
        self.draining.set()
        self.hub.wake_all()

    def stop(self):
        """What is being made goes back into the queue."""
        self.drain()
        self.slots.stop()
        self.sender.stop()
        if self.database.shared:
            self.follower.stop()
        self.janitor.stop()
        self.tracing.stop()
        self.database.close()
        os.close(self._lock)

    # -- what a request does

    def add(self, caller, wanted, uploads, key, fingerprint, request_id, traceparent):
        """A new Job in the queue. key: an Idempotency-Key, which this request holds."""
        image, audio = uploads["input_reference"], uploads["audio_reference"]
        frames = self.check(image, audio, wanted.options)
        extra = {"prompt": wanted.prompt, "metadata": wanted.metadata, "webhook_url": wanted.webhook_url,
                 "consent": wanted.consent, "request_id": request_id, "traceparent": traceparent, "frames": frames,
                 "key": caller.key, "names": [image.name, audio.name]}  # fmt: skip

        def within(connection, name):
            self._quota(connection, caller, frames)
            if key:
                idempotency.keep(connection, caller.tenant, key, fingerprint, name)
            audit.append(
                connection, caller.tenant, caller.key, "job.created", name, image=image.sha256, audio=audio.sha256,
                consent=wanted.consent, consent_version=self.settings.consent_version,
                visible_label=wanted.options.get("visible_label"),
            )  # fmt: skip

        job = self.jobs.add(caller.tenant, self.model, wanted.options, image.id, audio.id, extra, within)
        self._log("accepted", job)
        return job

    def _quota(self, connection, caller, frames):
        limits, tenant = caller.limits, caller.tenant
        waiting = connection.execute(
            "SELECT count(*) AS n FROM jobs WHERE tenant = ? AND state IN ('queued', 'in_progress')", (tenant,)
        ).fetchone()["n"] + self.live.count(tenant)
        if waiting >= limits.queued:
            raise Problem(429, "too_many_jobs", f"{waiting} jobs wait or run, which is the limit; wait for one to end")
        row = connection.execute("SELECT * FROM usage WHERE tenant = ? AND day = ?", (tenant, today())).fetchone()
        seconds = (row["video_seconds"] if row else 0) + (frames or 0) / 25
        if seconds > limits.video_seconds_a_day:
            raise Problem(429, "daily_limit", f"{limits.video_seconds_a_day:g} seconds of video a day are the limit; "
                          "go on tomorrow", headers={"Retry-After": "3600"})  # fmt: skip

    def check_quota(self, caller, frames):
        """Problem 429 for a tenant that may not make so many frames more."""
        with self.database.transaction() as connection:
            self._quota(connection, caller, frames)

    def check(self, image, audio, options):
        """How many frames a request will give, None when no worker could look. Problem for what it could not make."""
        chosen = [options.get(name) for name in ("face", "face_box", "duration", "max_audio_seconds")]
        known = (image.sha256, audio.sha256, json.dumps(chosen))
        if known not in self._looks:
            found = self._look(image, audio, options)
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
        found = self._look(image, None, {})
        if found is None:
            raise Problem(503, "not_ready", "no worker is ready to look at the photo; try again")
        if "error" in found:
            error = found["error"]
            raise Problem(error["status"], error["code"], error["message"], "input_reference")
        return {"width": found["size"][0], "height": found["size"][1], "faces": found["faces"]}

    def _look(self, image, audio, options):
        if not self._looking.acquire(timeout=LOOK):
            return None
        try:
            given = [one for one in (image, audio) if one]
            keys = [upload_key(one.tenant, one.id) for one in given]
            return self.slots.look(LOOK, keys, [one.name for one in given], options)
        finally:
            self._looking.release()

    def store_upload(self, caller, kind, file):
        """Keep a file for several jobs; Upload."""
        return self.store(caller, kind, file, True, "file")

    def store(self, caller, kind, file, kept, param):
        """Keep a file of a request; Upload. Problem, also for what the tenant or the disk has no room for."""
        if sum(storage.used(self.database, caller.tenant).values()) > caller.limits.bytes:
            raise Problem(413, "storage_limit", f"{caller.limits.bytes >> 20} MB of files are the limit; delete some")
        if sum(storage.used(self.database).values()) > self.settings.max_storage:
            raise Problem(507, "storage_full", "the service has no room for more files; try later")
        if self.settings.clamav:
            clamav.check(self.settings.clamav, file.file, param)
        return self.uploads.store(caller.tenant, kind, file.file, file.filename, kept, param)

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
            discard(self.files, result_key(job.tenant, job.result["file"]))
        for name in (job.image, job.audio):
            upload = self.uploads.get(job.tenant, name)
            if upload and not upload.kept and not self.uploads.in_use(job.tenant, name):
                self.uploads.remove(job.tenant, name)

    def expire(self, job):
        """The result of a job goes: first the row says so."""
        with self.database.transaction() as connection:
            if connection.execute(
                "UPDATE jobs SET state = 'expired' WHERE id = ? AND state = 'completed'", (job.id,)
            ).rowcount:
                storage.count(connection, job.tenant, results=-job.result["bytes"])
                audit.append(connection, job.tenant, "service", "job.expired", job.id)
        discard(self.files, result_key(job.tenant, job.result["file"]))

    # -- what is told of it

    def _count(self, connection, job):
        """Usage and audit of a job that ends, in the same transaction."""
        result = job.result
        seconds = result["frames"] / result["fps"] if result else 0
        self.use(connection, job.tenant, seconds, result.get("work_seconds", 0))
        if job.state == "completed":
            storage.count(connection, job.tenant, results=result["bytes"])
        audit.append(connection, job.tenant, "service", f"job.{job.state}", job.id, sha256=result.get("sha256"))

    @staticmethod
    def use(connection, tenant, video_seconds, work_seconds):
        """One more job in the usage of a tenant."""
        connection.execute(
            "INSERT INTO usage VALUES (?, ?, 1, ?, ?) ON CONFLICT (tenant, day) DO UPDATE SET jobs = usage.jobs + 1, "
            "video_seconds = usage.video_seconds + excluded.video_seconds, "
            "work_seconds = usage.work_seconds + excluded.work_seconds",
            (tenant, today(), video_seconds, work_seconds),
        )

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
