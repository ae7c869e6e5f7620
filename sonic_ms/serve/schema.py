"""The tables of the service, and how those of an older version become them: one function a step, forwards only.

Written once for both databases: SQLite takes BIGINT and DOUBLE PRECISION for its own; {serial} is the one difference.
"""

import json

from sonic_ms.errors import UsageError

FIRST = """
CREATE TABLE jobs (
    seq {serial},
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,          -- queued, in_progress, completed, failed, canceled, expired
    model TEXT NOT NULL,
    options TEXT NOT NULL,        -- JSON
    image TEXT NOT NULL,          -- id of an upload
    audio TEXT NOT NULL,
    extra TEXT NOT NULL,          -- JSON: prompt, metadata, webhook_url, consent, request_id, traceparent, shape
    created_at DOUBLE PRECISION NOT NULL,
    started_at DOUBLE PRECISION,
    completed_at DOUBLE PRECISION,
    expires_at DOUBLE PRECISION,
    attempt BIGINT NOT NULL DEFAULT 0,
    owner TEXT,                   -- the server that runs it
    lease_until DOUBLE PRECISION,
    cancel BIGINT NOT NULL DEFAULT 0,
    stage TEXT,
    frames_done BIGINT NOT NULL DEFAULT 0,
    frames_total BIGINT,
    result TEXT,                  -- JSON: file, bytes, sha256, width, height, fps, labels, notes, work_seconds
    error TEXT                    -- JSON: code, message, status
);
CREATE INDEX jobs_by_state ON jobs (state, tenant, seq);
CREATE INDEX jobs_by_tenant ON jobs (tenant, seq);
CREATE TABLE turns (tenant TEXT PRIMARY KEY, last BIGINT NOT NULL  -- who was served when
);
CREATE TABLE events (
    seq {serial}, job TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX events_by_job ON events (job, seq);
CREATE TABLE uploads (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL, created_at DOUBLE PRECISION NOT NULL,
    kept BIGINT NOT NULL          -- made by /v1/uploads, not by one job
);
CREATE TABLE idempotency (
    tenant TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, job TEXT, created_at DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE TABLE keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION, revoked_at DOUBLE PRECISION
);
CREATE TABLE tenants (id TEXT PRIMARY KEY, limits TEXT NOT NULL, webhook_secret TEXT NOT NULL);
CREATE TABLE usage (
    tenant TEXT NOT NULL, day TEXT NOT NULL, jobs BIGINT NOT NULL DEFAULT 0,
    video_seconds DOUBLE PRECISION NOT NULL DEFAULT 0, work_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, day)
);
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, job TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0, next_at DOUBLE PRECISION, state TEXT NOT NULL, last TEXT
);
CREATE INDEX webhooks_due ON webhooks (state, next_at);
CREATE TABLE audit (
    seq {serial}, at DOUBLE PRECISION NOT NULL, tenant TEXT NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, object TEXT NOT NULL, details TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
);
"""

SECOND = """
CREATE TABLE storage (tenant TEXT PRIMARY KEY, uploads BIGINT NOT NULL, results BIGINT NOT NULL  -- bytes
);
CREATE INDEX jobs_by_end ON jobs (state, expires_at);
CREATE INDEX jobs_by_image ON jobs (image);
CREATE INDEX jobs_by_audio ON jobs (audio);
CREATE INDEX uploads_by_age ON uploads (created_at);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX webhooks_by_job ON webhooks (job);
"""


def _run(connection, script):
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


def first(connection, serial):
    """Everything, as one machine needed it."""
    _run(connection, FIRST.format(serial=serial))


def second(connection, serial):
    """Bytes are counted as they come and go, not summed over all rows at every request; what is looked for among
    millions of rows has an index."""
    _run(connection, SECOND)
    sums = {}
    for row in connection.execute("SELECT tenant, bytes FROM uploads").fetchall():
        sums.setdefault(row["tenant"], [0, 0])[0] += row["bytes"]
    for row in connection.execute("SELECT tenant, result FROM jobs WHERE state = 'completed'").fetchall():
        sums.setdefault(row["tenant"], [0, 0])[1] += json.loads(row["result"])["bytes"]
    for tenant, (uploads, results) in sums.items():
        connection.execute("INSERT INTO storage VALUES (?, ?, ?)", (tenant, uploads, results))


STEPS = (first, second)
VERSION = len(STEPS)  # raised with every change, so that an older program does not write into newer tables


def migrate(database):
    """Bring the tables of an open database to VERSION. UsageError when they are newer."""
    with database.transaction() as connection:
        found = database.version(connection)
        if found > VERSION:
            raise UsageError(
                f"{database.name} is of a newer version of the service ({found}, this one knows {VERSION}); update "
                f"sonic_ms, or give another {database.flag}"
            )
        for step in STEPS[found:]:
            step(connection, database.serial)
        if found < VERSION:
            database.keep_version(connection, VERSION)
