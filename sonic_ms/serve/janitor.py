"""What is removed when its time has come, and what a crash left behind."""

import json
import logging
import threading
import time

from sonic_ms.serve import audit
from sonic_ms.serve.files import discard

log = logging.getLogger("sonic_ms.serve")

EVERY = 30.0  # seconds
KEEP_ROWS = 30 * 86400.0  # seconds that a job is remembered after its video has gone: 410, not 404
KEEP_KEYS = 86400.0  # of Idempotency-Key


class Janitor:
    """A thread that keeps to the times in the settings."""

    def __init__(self, service):
        self.service, self.database, self.files = service, service.database, service.files
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="janitor")

    def start(self):
        """Before anything else runs: remove files that no row knows, and what was deleted while it was made."""
        self.sweep()
        self._thread.start()

    def stop(self):
        self._stopping.set()
        self._thread.join()

    def _run(self):
        while not self._stopping.wait(EVERY):
            try:
                self.tidy()
            except Exception:
                log.exception("the janitor stumbled")

    def tidy(self, now=None):
        """Do what is due."""
        now = time.time() if now is None else now
        self.service.jobs.take_back()
        for row in self.database.rows(
            "SELECT id, tenant FROM jobs WHERE state = 'completed' AND expires_at < ?", now
        ):  # fmt: skip
            self.service.expire(self.service.jobs.get(row["tenant"], row["id"]))
        for row in self.database.rows(
            "SELECT id, tenant FROM uploads WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM jobs WHERE "
            "jobs.tenant = uploads.tenant AND uploads.id IN (image, audio) AND state IN ('queued', 'in_progress'))",
            now - self.service.settings.keep_inputs,
        ):
            self.service.uploads.remove(row["tenant"], row["id"])
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM idempotency WHERE created_at < ?", (now - KEEP_KEYS,))
            old = "SELECT id FROM jobs WHERE state IN ('expired', 'failed', 'canceled') AND expires_at < ?"
            connection.execute(f"DELETE FROM events WHERE job IN ({old})", (now - KEEP_ROWS,))
            connection.execute(f"DELETE FROM jobs WHERE id IN ({old})", (now - KEEP_ROWS,))
            connection.execute("DELETE FROM webhooks WHERE state != 'waiting' AND job NOT IN (SELECT id FROM jobs)")

    def sweep(self):
        """Remove files without a row, and rows that a DELETE left to their job's end."""
        known = {row["id"] for row in self.database.rows("SELECT id FROM uploads")}
        for row in self.database.rows("SELECT result FROM jobs WHERE state = 'completed'"):
            known.add(json.loads(row["result"])["file"])
        for key, _ in self.files.keys():
            if key.rpartition("/")[2] not in known:
                log.warning("removed %s, which no row knows", key)
                discard(self.files, key)
        for job in self.service.jobs.deleting():
            self.service.forget(job)


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
