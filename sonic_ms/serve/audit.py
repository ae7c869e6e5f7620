"""Who did what to whose job, without contents: rows that each hold the hash of the one before."""

import hashlib
import json
import time

START = "0" * 64


def _digest(previous, values):
    return hashlib.sha256((previous + json.dumps(values, sort_keys=True)).encode()).hexdigest()


def append(connection, tenant, actor, action, name, **details):
    """Add a row, within the transaction of what it tells about. actor: id of a key, or "service"."""
    row = connection.execute("SELECT hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
    previous = row["hash"] if row else START
    values = [round(time.time(), 3), tenant, actor, action, name, json.dumps(details, sort_keys=True)]
    connection.execute(
        "INSERT INTO audit (at, tenant, actor, action, object, details, previous, hash) VALUES (?,?,?,?,?,?,?,?)",
        (*values, previous, _digest(previous, values)),
    )


def check(database):
    """(how many rows, number of the first that does not follow from the one before, or None)."""
    previous, count = START, 0
    for row in database.rows("SELECT * FROM audit ORDER BY seq"):
        values = [row["at"], row["tenant"], row["actor"], row["action"], row["object"], row["details"]]
        if row["previous"] != previous or row["hash"] != _digest(previous, values):
            return count, row["seq"]
        previous, count = row["hash"], count + 1
    return count, None


def page(database, tenant, after=0, limit=100):
    """Rows of a tenant after a number, oldest first."""
    rows = database.rows(
        "SELECT * FROM audit WHERE tenant = ? AND seq > ? ORDER BY seq LIMIT ?", tenant, after, limit
    )  # fmt: skip
    return [dict(row) | {"details": json.loads(row["details"])} for row in rows]
