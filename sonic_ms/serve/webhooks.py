"""Telling others that a job has ended, after Standard Webhooks: a table of its own, signed, tried seven times."""

import base64
import hashlib
import hmac
import http.client
import json
import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sonic_ms.serve.addresses import Refused, post
from sonic_ms.serve.problems import Unavailable

log = logging.getLogger("sonic_ms.serve")

SENDERS = 4  # at once: one slow receiver does not hold up the others
LOOK = 1.0  # seconds between two looks at the table
HOLD = 60.0  # seconds that a server has for one attempt, before another takes it for dead and sends again


def sign(secret, name, at, body):
    """The header webhook-signature. secret: whsec_...; name: webhook-id; at: seconds; body: text."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{name}.{at}.{body}".encode(), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def remember(connection, job):
    """Put the end of a job into the table, in the transaction that ends it."""
    url = job.extra.get("webhook_url")
    if not url:
        return
    name = f"evt_{secrets.token_hex(16)}"
    kind = "video.completed" if job.state == "completed" else "video.failed"
    body = {"id": name, "object": "event", "created_at": int(time.time()), "type": kind,
            "data": {"id": job.id, "state": job.state}}  # fmt: skip
    connection.execute(
        "INSERT INTO webhooks VALUES (?, ?, ?, ?, ?, 0, ?, 'waiting', NULL)",
        (name, job.tenant, job.id, url, json.dumps(body), time.time()),
    )


class Sender:
    """A thread that sends what is due. sent: called with the result of each attempt: "ok", "failed" or "given_up"."""

    def __init__(self, database, secret_of, private, pauses, sent):
        self.database, self.secret_of, self.private, self.pauses, self.sent = database, secret_of, private, pauses, sent
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="webhooks")
        self._pool = ThreadPoolExecutor(SENDERS, "webhook")
        self._busy = set()  # ids that are being sent

    def start(self):
        self._thread.start()

    def stop(self):
        """What was not delivered yet is sent after the next start."""
        self._stopping.set()
        self._thread.join()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self):
        while not self._stopping.wait(LOOK):
            try:
                rows = self.database.rows(
                    "SELECT * FROM webhooks WHERE state = 'waiting' AND next_at <= ? ORDER BY next_at LIMIT 20",
                    time.time(),
                )  # fmt: skip
            except Exception:
                log.exception("the table of webhooks cannot be read")
                continue
            for row in rows:
                if row["id"] not in self._busy:
                    self._busy.add(row["id"])
                    self._pool.submit(self._deliver, dict(row))

    def _deliver(self, row):
        try:
            if self._is_ours(row):
                problem = self._try(row)
                while not self._noted(row, problem) and not self._stopping.wait(LOOK):
                    pass
        except Exception:
            log.exception("a webhook stumbled")
        finally:
            self._busy.discard(row["id"])

    def _is_ours(self, row):
        """Whether this server is the one that sends it now: the first to put off its next time."""
        with self.database.transaction(alone=False) as connection:
            return connection.execute(
                "UPDATE webhooks SET next_at = ? WHERE id = ? AND state = 'waiting' AND next_at = ?",
                (time.time() + HOLD, row["id"], row["next_at"]),
            ).rowcount

    def _try(self, row):
        """What went wrong, or None."""
        at = int(time.time())
        headers = {"webhook-id": row["id"], "webhook-timestamp": str(at), "Content-Type": "application/json",
                   "webhook-signature": sign(self.secret_of(row["tenant"]), row["id"], at, row["body"]),
                   "User-Agent": "sonic-ms"}  # fmt: skip
        try:
            status = post(row["url"], row["body"], headers, self.private)
        except Refused as error:
            return str(error)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        if 200 <= status < 300:
            return None
        return f"answered {status}" + (", which is not followed" if 300 <= status < 400 else "")

    def _noted(self, row, problem):
        """Write down how it went; whether that could be done."""
        try:
            self._note(row, problem)
        except Unavailable:
            return False
        return True

    def _note(self, row, problem):
        attempts = row["attempts"] + 1
        if problem is None:
            state, next_at = "delivered", None
        elif attempts > len(self.pauses) or problem == "answered 410":
            state, next_at = "given_up", None
        else:
            state, next_at = "waiting", time.time() + self.pauses[attempts - 1]
        with self.database.transaction(alone=False) as connection:
            connection.execute("UPDATE webhooks SET attempts = ?, state = ?, next_at = ?, last = ? WHERE id = ?",
                               (attempts, state, next_at, problem, row["id"]))  # fmt: skip
        self.sent({"delivered": "ok", "given_up": "given_up", "waiting": "failed"}[state])
