"""The jobs: rows that are there before work starts and say the truth about it afterwards.

queued -> in_progress -> completed | failed | canceled; a result that is gone makes a job expired. Only the owner of a
claim may finish it: an attempt that was given back meanwhile changes nothing.
"""

import json
import math
import secrets
import time
from dataclasses import dataclass, field

from sonic_ms.serve import storage
from sonic_ms.serve.database import Database

ENDED = ("completed", "failed", "canceled", "expired")
ATTEMPTS = 2
LEASE = 15.0  # seconds that a claim holds without being renewed
JSON_COLUMNS = ("options", "extra", "result", "error")


@dataclass
class Job:
    """A row of `jobs`; see database.TABLES."""

    id: str
    tenant: str
    state: str
    model: str
    options: dict
    image: str
    audio: str
    extra: dict
    created_at: float
    seq: int = 0
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    attempt: int = 0
    owner: str | None = None
    lease_until: float | None = None
    cancel: int = 0
    stage: str | None = None
    frames_done: int = 0
    frames_total: int | None = None
    result: dict = field(default_factory=dict)
    error: dict | None = None

    @property
    def ended(self):
        return self.state in ENDED


def _job(row):
    values = {name: row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over its values
    for name in JSON_COLUMNS:
        values[name] = json.loads(values[name]) if values[name] is not None else None
    values["result"] = values["result"] or {}
    return Job(**values)


class Jobs:
    """The table of jobs in a Database, and its events.

    listeners are called with the id of a job after each change of it, from whatever thread made the change.
    """

    def __init__(self, database: Database, keep_results=7 * 86400.0):
        self.database = database
        self.keep_results = keep_results
        self.slots = 1  # workers that share the queue
        self.listeners = []
        self.on_end = []  # called inside the transaction that ends a job, with (connection, Job)

    def _changed(self, job):
        for listener in self.listeners:
            listener(job)

    # -- one job

    def add(self, tenant, model, options, image, audio, extra, within=None):
        """A new queued job, stored. within: called with (connection, id) in the same transaction; it may raise."""
        job = Job(f"video_{secrets.token_hex(16)}", tenant, "queued", model, options, image, audio, extra,
                  self.database.now())  # fmt: skip
        with self.database.transaction() as connection:
            if within:
                within(connection, job.id)
            connection.execute(
                "INSERT INTO jobs (id, tenant, state, model, options, image, audio, extra, created_at, frames_total) "
                "VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                (job.id, tenant, model, json.dumps(options), image, audio, json.dumps(extra), job.created_at,
                 extra.get("frames")),
            )  # fmt: skip
            self._event(connection, job.id, "status")
        self._changed(job.id)
        return self.get(tenant, job.id)

    def get(self, tenant, name):
        """The job of a tenant, or None: nobody sees the job of another, nor one that is being deleted."""
        row = self.database.row("SELECT * FROM jobs WHERE id = ? AND tenant = ? AND cancel < 2", name, tenant)
        return _job(row) if row else None

    def current(self, job):
        """A job as its row is now, deleted or not; as it was when there is no row."""
        row = self.database.row("SELECT * FROM jobs WHERE id = ?", job.id)
        return _job(row) if row else job

    def page(self, tenant, limit, after=None, order="desc"):
        """(jobs, whether there are more) of a tenant, newest first or oldest first. after: id of the last one seen."""
        sign, place = ("<", 1 << 62) if order == "desc" else (">", 0)
        if after is not None:
            row = self.database.row("SELECT seq FROM jobs WHERE id = ? AND tenant = ?", after, tenant)
            if row is None:
                return None, False
            place = row["seq"]
        rows = self.database.rows(
            f"SELECT * FROM jobs WHERE tenant = ? AND cancel < 2 AND seq {sign} ? ORDER BY seq {order} LIMIT ?",
            tenant, place, limit + 1,
        )  # fmt: skip
        return [_job(row) for row in rows[:limit]], len(rows) > limit

    def delete(self, tenant, name):
        """Hide a job, end it if need be, and forget it once it has ended. The Job as it was then, or None."""
        self.cancel(tenant, name)
        with self.database.transaction() as connection:
            connection.execute("UPDATE jobs SET cancel = 2 WHERE id = ? AND tenant = ?", (name, tenant))
            row = connection.execute("SELECT * FROM jobs WHERE id = ? AND tenant = ?", (name, tenant)).fetchone()
            job = _job(row) if row else None
            if job and job.ended:
                connection.execute("DELETE FROM jobs WHERE id = ?", (name,))
                connection.execute("DELETE FROM events WHERE job = ?", (name,))
                if job.state == "completed":
                    storage.count(connection, tenant, results=-job.result["bytes"])
        self._changed(name)
        return job

    def deleting(self):
        """Jobs that were deleted while they were made, and have ended since."""
        rows = self.database.rows("SELECT * FROM jobs WHERE cancel = 2")
        return [job for job in map(_job, rows) if job.ended]

    # -- the queue

    def claim(self, owner, busy=False):
        """The next job, in_progress and ours for LEASE seconds, or None. The tenant with the fewest running jobs comes
        first, then the one that was served longest ago. busy: it would run beside others, which a job whose first
        attempt broke down has to wait for: who is to blame shows when it is alone."""
        if not self.database.row("SELECT 1 AS one FROM jobs WHERE state = 'queued' AND cancel = 0 LIMIT 1"):
            return None  # most looks find nothing, and need nobody to wait
        with self.database.transaction() as connection:
            row = connection.execute(
                """SELECT first.seq, (SELECT attempt FROM jobs WHERE seq = first.seq) AS attempt FROM
                   (SELECT tenant, min(seq) AS seq FROM jobs WHERE state = 'queued' AND cancel = 0 GROUP BY tenant)
                   AS first LEFT JOIN turns ON turns.tenant = first.tenant
                   ORDER BY (SELECT count(*) FROM jobs WHERE state = 'in_progress' AND tenant = first.tenant),
                            coalesce(turns.last, 0), first.seq LIMIT 1"""
            ).fetchone()
            if row is None or (busy and row["attempt"]):
                return None
            now = self.database.now()
            connection.execute(
                "UPDATE jobs SET state = 'in_progress', owner = ?, lease_until = ?, attempt = attempt + 1, "
                "started_at = coalesce(started_at, ?), stage = 'starting', frames_done = 0 WHERE seq = ?",
                (owner, now + LEASE, now, row["seq"]),
            )
            job = _job(connection.execute("SELECT * FROM jobs WHERE seq = ?", (row["seq"],)).fetchone())
            connection.execute(
                "INSERT INTO turns VALUES (?, (SELECT coalesce(max(last), 0) + 1 FROM turns)) "
                "ON CONFLICT (tenant) DO UPDATE SET last = excluded.last",
                (job.tenant,),
            )
            self._event(connection, job.id, "status")
        self._changed(job.id)
        return job

    def renew(self, owner, names):
        """Hold our claims for another LEASE seconds."""
        marks = ", ".join("?" * len(names))
        with self.database.transaction(alone=False, durable=False) as connection:
            connection.execute(
                f"UPDATE jobs SET lease_until = ? WHERE owner = ? AND state = 'in_progress' AND id IN ({marks})",
                (self.database.now() + LEASE, owner, *names),
            )

    def progress(self, job, stage, done, total):
        """What a running job has reached. done, total: frames where the stage is "frames", else steps."""
        frames = {"frames_done": done, "frames_total": total} if stage == "frames" else {}
        columns = {"stage": stage, **frames}
        with self.database.transaction(alone=False, durable=False) as connection:
            sets = ", ".join(f"{name} = ?" for name in columns)
            ours = connection.execute(
                f"UPDATE jobs SET {sets} WHERE id = ? AND owner = ? AND attempt = ? AND state = 'in_progress'",
                (*columns.values(), job.id, job.owner, job.attempt),
            ).rowcount
            if ours:
                self._event(connection, job.id, "progress")
        self._changed(job.id)

    def finish(self, job, state, result=None, error=None):
        """End a job that we own; whether it ended so. It may be said again when an answer got lost on its way."""
        now = self.database.now()
        with self.database.transaction() as connection:
            done = connection.execute(
                "UPDATE jobs SET state = ?, completed_at = ?, expires_at = ?, result = ?, error = ?, owner = NULL, "
                "lease_until = NULL, stage = NULL WHERE id = ? AND owner = ? AND attempt = ? AND state = 'in_progress'",
                (state, now, now + self.keep_results, json.dumps(result) if result else None,
                 json.dumps(error) if error else None, job.id, job.owner, job.attempt),
            ).rowcount  # fmt: skip
            if done:
                self._after(connection, job.id, state)
            else:
                done = self._was_ended(connection, job, state, result)
        self._changed(job.id)
        return bool(done)

    @staticmethod
    def _was_ended(connection, job, state, result):
        row = connection.execute(
            "SELECT result FROM jobs WHERE id = ? AND attempt = ? AND state = ?", (job.id, job.attempt, state)
        ).fetchone()
        return row is not None and (json.loads(row["result"]) if row["result"] else None) == (result or None)

    def give_back(self, job, reason, counted=True):
        """Put a claimed job back into the queue, or fail it with `reason` when it had its attempts. counted: this
        attempt was the job's own. Returns its state, or None when it was no longer ours."""
        with self.database.transaction() as connection:
            row = connection.execute(
                "SELECT * FROM jobs WHERE id = ? AND owner = ? AND attempt = ? AND state = 'in_progress'",
                (job.id, job.owner, job.attempt),
            ).fetchone()
            state = self._give_back(connection, row, reason, counted) if row else None
        self._changed(job.id)
        return state

    def _give_back(self, connection, row, reason, counted):
        now = self.database.now()
        if row["cancel"]:
            state, error = "canceled", {"code": "canceled", "message": "canceled", "status": 409}
        elif counted and row["attempt"] >= ATTEMPTS:
            message = f"{reason}; it was tried {row['attempt']} times"
            state, error = "failed", {"code": "worker_crashed", "message": message, "status": 500}
        else:
            connection.execute(
                "UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL, stage = NULL, frames_done = 0, "
                "attempt = attempt - ? WHERE seq = ?",
                (0 if counted else 1, row["seq"]),
            )
            self._event(connection, row["id"], "status")
            return "queued"
        connection.execute(
            "UPDATE jobs SET state = ?, completed_at = ?, expires_at = ?, error = ?, owner = NULL, lease_until = NULL, "
            "stage = NULL WHERE seq = ?",
            (state, now, now + self.keep_results, json.dumps(error), row["seq"]),
        )
        self._after(connection, row["id"], state)
        return state

    def take_back(self, everything=False):
        """Put jobs back whose owner is gone: those past their lease, or at the start of the only server all of them."""
        if time.monotonic() - self.database.back_at < LEASE:
            return 0  # nobody could renew a lease while the database was away
        until = math.inf if everything else self.database.now()
        with self.database.transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE state = 'in_progress' AND lease_until < ?", (until,)
            ).fetchall()
            for row in rows:
                self._give_back(connection, row, "the server or its worker ended while the video was made", True)
        for row in rows:
            self._changed(row["id"])
        return len(rows)

    def cancel(self, tenant, name):
        """Ask for the end of a job: at once where it is queued, soon where it runs. The job, or None."""
        with self.database.transaction() as connection:
            where = (name, tenant)
            now = self.database.now()
            connection.execute(
                "UPDATE jobs SET cancel = 1 WHERE id = ? AND tenant = ? AND state = 'in_progress' AND cancel = 0", where
            )
            error = json.dumps({"code": "canceled", "message": "canceled before it began", "status": 409})
            if connection.execute(
                "UPDATE jobs SET state = 'canceled', completed_at = ?, expires_at = ?, error = ? "
                "WHERE id = ? AND tenant = ? AND state = 'queued'",
                (now, now + self.keep_results, error, *where),
            ).rowcount:
                self._after(connection, name, "canceled")
        self._changed(name)
        return self.get(tenant, name)

    def canceling(self, names):
        """Those of our running jobs whose end was asked for."""
        marks = ", ".join("?" * len(names))
        rows = self.database.rows(f"SELECT id FROM jobs WHERE cancel > 0 AND id IN ({marks})", *names) if names else []
        return {row["id"] for row in rows}

    def _after(self, connection, name, state):
        self._event(connection, name, state)
        job = _job(connection.execute("SELECT * FROM jobs WHERE id = ?", (name,)).fetchone())
        for call in self.on_end:
            call(connection, job)

    # -- events

    def _event(self, connection, name, kind):
        row = connection.execute("SELECT * FROM jobs WHERE id = ?", (name,)).fetchone()
        data = {"state": row["state"], "stage": row["stage"], "frames_done": row["frames_done"],
                "frames_total": row["frames_total"], "attempt": row["attempt"]}  # fmt: skip
        if row["error"]:
            data["error"] = json.loads(row["error"])
        connection.execute("INSERT INTO events (job, name, data) VALUES (?, ?, ?)", (name, kind, json.dumps(data)))

    def events(self, name, after=0):
        """[(number, name, data)] of a job after a number."""
        rows = self.database.rows(
            "SELECT seq, name, data FROM events WHERE job = ? AND seq > ? ORDER BY seq", name, after
        )
        return [(row["seq"], row["name"], json.loads(row["data"])) for row in rows]

    # -- looking ahead

    def position(self, job):
        """How many jobs start before this queued one, as `claim` will take turns; None for one that is not queued."""
        if job.state != "queued":
            return None
        mine = self.database.row(
            "SELECT count(*) AS n FROM jobs WHERE state = 'queued' AND tenant = ? AND seq < ?", job.tenant, job.seq
        )["n"]
        rows = self.database.rows(
            """SELECT tenant, count(*) AS n, min(seq) AS first,
               coalesce((SELECT last FROM turns WHERE turns.tenant = jobs.tenant), 0) AS last,
               (SELECT count(*) FROM jobs AS r WHERE r.state = 'in_progress' AND r.tenant = jobs.tenant) AS running
               FROM jobs WHERE state = 'queued' GROUP BY tenant"""
        )
        order = {row["tenant"]: (row["running"], row["last"], row["first"]) for row in rows}
        own = order.get(job.tenant, (0, 0, 0))
        before = mine
        for row in rows:
            if row["tenant"] != job.tenant:
                before += min(row["n"], mine + (1 if order[row["tenant"]] < own else 0))
        return before

    def speed(self, model):
        """Seconds of work a frame takes with a model, of its last jobs; None when unknown."""
        rows = self.database.rows(
            "SELECT result, frames_total AS frames FROM jobs WHERE state = 'completed' AND model = ? "
            "AND frames_total > 0 ORDER BY seq DESC LIMIT 20", model,
        )  # fmt: skip
        work = sum(json.loads(row["result"])["work_seconds"] for row in rows)
        frames = sum(row["frames"] for row in rows)
        return work / frames if rows else None

    def eta(self, job):
        """Seconds until a job will be done, from the speed of those before it; None while nobody knows."""
        total = job.frames_total
        if job.ended or not total or not (speed := self.speed(job.model)):
            return None
        left = (total - job.frames_done) * speed
        if job.state == "queued":
            row = self.database.row(
                "SELECT CAST(coalesce(sum(frames_total - frames_done), 0) AS BIGINT) AS frames FROM jobs "
                "WHERE state = 'in_progress' OR (state = 'queued' AND seq < ?)", job.seq,
            )  # fmt: skip
            left += row["frames"] * speed / self.slots
        return round(left, 1)

    def webhook(self, job):
        """{url, state, attempts, last} of what is told of a job's end, or None."""
        url = job.extra.get("webhook_url")
        if not url:
            return None
        row = self.database.row("SELECT state, attempts, last FROM webhooks WHERE job = ?", job.id)
        return {"url": url, **(dict(row) if row else {"state": "waiting", "attempts": 0, "last": None})}
