-- Version 1 of the tables, as the first service made them.
CREATE TABLE IF NOT EXISTS jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,          -- queued, in_progress, completed, failed, canceled, expired
    model TEXT NOT NULL,
    options TEXT NOT NULL,        -- JSON
    image TEXT NOT NULL,          -- id of an upload
    audio TEXT NOT NULL,
    extra TEXT NOT NULL,          -- JSON: prompt, metadata, webhook_url, consent, request_id, traceparent, shape
    created_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    expires_at REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    owner TEXT,                   -- the server that runs it
    lease_until REAL,
    cancel INTEGER NOT NULL DEFAULT 0,
    stage TEXT,
    frames_done INTEGER NOT NULL DEFAULT 0,
    frames_total INTEGER,
    result TEXT,                  -- JSON: file, bytes, sha256, width, height, fps, labels, notes, work_seconds
    error TEXT                    -- JSON: code, message, status
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, tenant, seq);
CREATE INDEX IF NOT EXISTS jobs_by_tenant ON jobs (tenant, seq);
CREATE TABLE IF NOT EXISTS turns (tenant TEXT PRIMARY KEY, last INTEGER NOT NULL);  -- who was served when
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_job ON events (job, seq);
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, created_at REAL NOT NULL, kept INTEGER NOT NULL   -- kept: made by /v1/uploads, not by one job
);
CREATE TABLE IF NOT EXISTS idempotency (
    tenant TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, job TEXT, created_at REAL NOT NULL,
    PRIMARY KEY (tenant, key)
);
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL, revoked_at REAL
);
CREATE TABLE IF NOT EXISTS tenants (id TEXT PRIMARY KEY, limits TEXT NOT NULL, webhook_secret TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS usage (
    tenant TEXT NOT NULL, day TEXT NOT NULL, jobs INTEGER NOT NULL DEFAULT 0, video_seconds REAL NOT NULL DEFAULT 0,
    work_seconds REAL NOT NULL DEFAULT 0, PRIMARY KEY (tenant, day)
);
CREATE TABLE IF NOT EXISTS webhooks (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, job TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL, state TEXT NOT NULL, last TEXT
);
CREATE INDEX IF NOT EXISTS webhooks_due ON webhooks (state, next_at);
CREATE TABLE IF NOT EXISTS audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, tenant TEXT NOT NULL, actor TEXT NOT NULL,
    action TEXT NOT NULL, object TEXT NOT NULL, details TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
);
