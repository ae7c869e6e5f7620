"""Idempotency-Key: a request that is sent twice makes one job, whichever server gets it.

After the IETF's draft (draft-ietf-httpapi-idempotency-key-header-07): a key belongs to a tenant, its first request
holds it from the beginning, and until that one is answered a second gets 409; afterwards the same request gets the same
job, another one 422.
"""

import contextlib
import threading
import time

from sonic_ms.serve.problems import Problem, Unavailable

ABANDONED = 300.0  # seconds after which a request that was never answered holds its key no longer: its server is gone
PAUSE = 0.5  # seconds between two attempts to release one


def hold(database, tenant, key):
    """Take a key for a request that begins. None when it is ours now, else the row of the request that has it.
    Problem 409 while that one is being answered."""
    now = database.now()
    with database.transaction(alone=False) as connection:
        connection.execute(
            "DELETE FROM idempotency WHERE tenant = ? AND key = ? AND job IS NULL AND created_at < ?",
            (tenant, key, now - ABANDONED),
        )
        ours = connection.execute(
            "INSERT INTO idempotency VALUES (?, ?, '', NULL, ?) ON CONFLICT DO NOTHING", (tenant, key, now)
        ).rowcount
    if ours:
        return None
    row = database.row("SELECT * FROM idempotency WHERE tenant = ? AND key = ?", tenant, key)
    if row is None or row["job"] is None:
        raise _in_flight(key)
    return row


def keep(connection, tenant, key, fingerprint, job):
    """The request that holds a key has made a job; in the transaction that adds it."""
    if not connection.execute(
        "UPDATE idempotency SET fingerprint = ?, job = ? WHERE tenant = ? AND key = ? AND job IS NULL",
        (fingerprint, job, tenant, key),
    ).rowcount:
        raise _in_flight(key)  # it took so long that another one has the key


def release(database, tenant, key):
    """The request that holds a key came to nothing. While the database is away, which may be why, it is tried again
    behind the answer: who sends the request again then shall not have to wait until the key is ABANDONED."""
    try:
        _release(database, tenant, key)
    except Unavailable:
        threading.Thread(target=_release_later, args=(database, tenant, key), daemon=True).start()


def _release_later(database, tenant, key):
    end = time.monotonic() + ABANDONED
    while time.monotonic() < end:
        time.sleep(PAUSE)
        with contextlib.suppress(Unavailable):
            return _release(database, tenant, key)


def _release(database, tenant, key):
    with database.transaction(alone=False) as connection:
        connection.execute("DELETE FROM idempotency WHERE tenant = ? AND key = ? AND job IS NULL", (tenant, key))


def made_before(jobs, tenant, key, row, fingerprint):
    """The job that a key made before. Problem 422 when that was another request, 410 when it is gone."""
    if row["fingerprint"] != fingerprint:
        raise Problem(422, "idempotency_key_reused", f"Idempotency-Key {key[:80]!r} was used for another request; "
                      "take a new one")  # fmt: skip
    if job := jobs.get(tenant, row["job"]):
        return job
    raise Problem(410, "deleted", f"Idempotency-Key {key[:80]!r} made {row['job']}, which was deleted")


def _in_flight(key):
    return Problem(409, "idempotency_key_in_flight", f"a request with Idempotency-Key {key[:80]!r} is being answered; "
                   "send it again when that has its answer", headers={"Retry-After": "1"})  # fmt: skip
