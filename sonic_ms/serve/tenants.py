"""Who asks: keys, what they may do, and how much. A key is shown once and stored as its hash."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass, field, fields

from sonic_ms.errors import UsageError
from sonic_ms.serve.problems import Problem
from sonic_ms.serve.settings import LOCAL

SCOPES = ("read", "create", "delete", "unlabelled", "audit", "metrics")  # unlabelled: without the visible label
USUAL = ("read", "create", "delete")
PREFIX = "sk-sonic-"


@dataclass(frozen=True)
class Limits:
    """How much one tenant may have. Written with --limit NAME=NUMBER."""

    queued: int = 1000  # jobs waiting or running
    video_seconds_a_day: float = 36000.0
    bytes: int = 10 << 30  # of uploads and results
    requests_a_minute: int = 6000


@dataclass(frozen=True)
class Caller:
    """A tenant with the key that was used."""

    tenant: str
    key: str = "none"
    scopes: tuple[str, ...] = SCOPES
    limits: Limits = field(default_factory=Limits)


def _hash(key):
    return hashlib.sha256(key.encode()).hexdigest()  # 32 random bytes need no slow hash


class Tenants:
    """The tables tenants and keys of a Database."""

    def __init__(self, database):
        self.database = database

    def add_key(self, tenant, scopes=USUAL, days=None, limits=None):
        """A new key of a tenant, made with its first. The key, which is nowhere else. limits: {name: number}."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", tenant):
            raise UsageError(f"tenant {tenant[:80]!r}; expected up to 63 small letters, digits and dashes")
        if wrong := sorted(set(scopes) - set(SCOPES)):
            raise UsageError(f"scopes {', '.join(wrong)} are not known; known are {', '.join(SCOPES)}")
        key, now = PREFIX + secrets.token_urlsafe(32), time.time()
        expires = now + days * 86400 if days else None
        with self.database.transaction() as connection:
            self._add(connection, tenant, limits)
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, NULL)",
                (f"key_{secrets.token_hex(8)}", tenant, _hash(key), " ".join(scopes), now, expires),
            )
        return key

    def _add(self, connection, tenant, limits=None):
        row = connection.execute("SELECT limits FROM tenants WHERE id = ?", (tenant,)).fetchone()
        known = {one.name for one in fields(Limits)}
        if wrong := sorted(set(limits or {}) - known):
            raise UsageError(f"limits {', '.join(wrong)} are not known; known are {', '.join(sorted(known))}")
        merged = (json.loads(row["limits"]) if row else {}) | (limits or {})
        connection.execute(
            "INSERT INTO tenants VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET limits = excluded.limits",
            (tenant, json.dumps(merged), "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()),
        )

    def list_keys(self):
        """Rows of all keys: id, tenant, scopes, created_at, expires_at, revoked_at."""
        names = "id, tenant, scopes, created_at, expires_at, revoked_at"
        return [dict(row) for row in self.database.rows(f"SELECT {names} FROM keys ORDER BY created_at")]

    def revoke(self, name):
        """End a key; whether there was one."""
        with self.database.transaction() as connection:
            return bool(connection.execute(
                "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (time.time(), name)
            ).rowcount)  # fmt: skip

    def any_key(self):
        now = time.time()
        return self.database.row(
            "SELECT 1 FROM keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)", now
        ) is not None  # fmt: skip

    def local(self):
        """The Caller of a server without keys."""
        with self.database.transaction() as connection:
            self._add(connection, LOCAL)
        return Caller(LOCAL, limits=Limits(queued=100_000, video_seconds_a_day=1e9, bytes=1 << 60,
                                           requests_a_minute=10**9))  # fmt: skip

    def caller(self, authorization):
        """The Caller of an Authorization header: Bearer, or Basic with the key as user or password. Problem 401."""
        for key in _given(authorization or ""):
            digest = _hash(key)
            row = self.database.row(
                "SELECT keys.*, tenants.limits FROM keys JOIN tenants ON tenants.id = keys.tenant WHERE hash = ?",
                digest,
            )
            if row is None or not hmac.compare_digest(row["hash"], digest) or row["revoked_at"] is not None:
                continue
            if row["expires_at"] is not None and row["expires_at"] <= time.time():
                continue
            limits = Limits(**(asdict(Limits()) | json.loads(row["limits"])))
            return Caller(row["tenant"], row["id"], tuple(row["scopes"].split()), limits)
        raise Problem(
            401, "invalid_api_key", "no valid key; send the header Authorization: Bearer KEY",
            headers={"WWW-Authenticate": 'Bearer realm="sonic-ms"'},
        )  # fmt: skip

    def webhook_secret(self, tenant):
        row = self.database.row("SELECT webhook_secret FROM tenants WHERE id = ?", tenant)
        return row["webhook_secret"] if row else None


def _given(authorization):
    """Keys that an Authorization header may hold."""
    kind, _, rest = authorization.partition(" ")
    if kind.lower() == "bearer":
        return [rest.strip()]
    if kind.lower() == "basic":
        try:
            text = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, ValueError):
            return []
        return [part for part in (text, *text.partition(":")[::2]) if part]
    return []
