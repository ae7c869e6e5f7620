"""What is removed when its time has come, and what a crash left behind."""

import contextlib
import itertools
import json
import logging
import math
import threading
import time

from sonic_ms.serve import audit
from sonic_ms.serve.files import discard, result_key, upload_key
from sonic_ms.serve.problems import Problem, Unavailable

log = logging.getLogger("sonic_ms.serve")

EVERY = 30.0  # seconds
SWEEP = 6 * 3600.0  # seconds between two looks at all files
DAY = 86400.0  # seconds
AT_ONCE = 500  # files in one statement
KEEP_ROWS = 30 * 86400.0  # seconds that a job is remembered after its video has gone: 410, not 404
KEEP_KEYS = 86400.0  # of Idempotency-Key


class Janitor:
    """A thread that keeps to the times in the settings. Of the servers of a database one does it at a time."""

    def __init__(self, service):
        self.service, self.database, self.files = service, service.database, service.files
        self._stopping = threading.Event()
        self._swept = -math.inf
        self._thread = threading.Thread(target=self._run, daemon=True, name="janitor")

    def start(self):
        """A server that is alone begins by removing what no row knows; among others that waits until all is started."""
        if not self.database.shared:
            self.sweep()
            self._swept = time.monotonic()
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        while not self._stopping.wait(EVERY):
            try:
                with self.database.leading("janitor") as mine:
                    if mine:
                        self.tidy()
                        self._sweep_if_due()
            except Unavailable as error:
                log.warning("the janitor waits: %s", error)
            except Exception:
                log.exception("the janitor stumbled")

    def tidy(self, now=None):
        """Do what is due."""
        now = self.database.now() if now is None else now
        self.service.jobs.take_back()
        for job in self.service.jobs.deleting():
            self.service.forget(job)
        for row in self.database.rows(
            "SELECT id, tenant FROM jobs WHERE state = 'completed' AND expires_at < ?", now
        ):  # fmt: skip
            if job := self.service.jobs.get(row["tenant"], row["id"]):
                self.service.expire(job)
        for row in self.database.rows(
            "SELECT id, tenant FROM uploads WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE "
            "(image = uploads.id OR audio = uploads.id) AND state IN ('queued', 'in_progress'))",
            now - self.service.settings.keep_inputs,
        ):
            with contextlib.suppress(Problem):  # a new job wants it after all
                self.service.uploads.remove(row["tenant"], row["id"])
        old = "SELECT id FROM jobs WHERE state IN ('expired', 'failed', 'canceled') AND expires_at < ?"
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM idempotency WHERE created_at < ?", (now - KEEP_KEYS,))
            connection.execute(f"DELETE FROM webhooks WHERE state != 'waiting' AND job IN ({old})", (now - KEEP_ROWS,))
            connection.execute(f"DELETE FROM events WHERE job IN ({old})", (now - KEEP_ROWS,))
            connection.execute(f"DELETE FROM jobs WHERE id IN ({old})", (now - KEEP_ROWS,))

    def _sweep_if_due(self):
        if time.monotonic() - self._swept > SWEEP:
            self._swept = time.monotonic()
            self.sweep(DAY)

    def sweep(self, age=0.0):
        """Remove files without a row that are older than `age` seconds: another server may just be storing them."""
        files = (key for key, seconds in self.files.stored() if seconds >= age)
        while keys := list(itertools.islice(files, AT_ONCE)):
            known = self._known(keys)
            for key in keys:
                if key not in known:
                    log.warning("removed %s, which no row knows", key)
                    discard(self.files, key)

    def _known(self, keys):
        """Those of `keys` that a row knows."""
        names = [key.rpartition("/")[2] for key in keys]
        marks = ", ".join("?" * len(names))
        rows = self.database.rows(f"SELECT id, tenant FROM uploads WHERE id IN ({marks})", *names)
        known = {upload_key(row["tenant"], row["id"]) for row in rows}
        jobs = [name.partition("-")[0] for name in names]
        rows = self.database.rows(
            f"SELECT tenant, result FROM jobs WHERE state = 'completed' AND id IN ({marks})", *jobs
        )
        return known | {result_key(row["tenant"], json.loads(row["result"])["file"]) for row in rows}


def erase(service, tenant, actor):
    """Everything of a tenant but its lines in the audit and its keys: jobs end, files go. How many jobs there were."""
    names = [row["id"] for row in service.database.rows("SELECT id FROM jobs WHERE tenant = ?", tenant)]
    for name in names:
        service.delete(tenant, name, actor)
    for row in service.database.rows("SELECT id FROM uploads WHERE tenant = ?", tenant):
        service.uploads.remove(tenant, row["id"], by_force=True)
    with service.database.transaction() as connection:
        for table in ("idempotency", "webhooks", "usage"):
            connection.execute(f"DELETE FROM {table} WHERE tenant = ?", (tenant,))
        audit.append(connection, tenant, actor, "tenant.erased", tenant, jobs=len(names))
    return len(names)
