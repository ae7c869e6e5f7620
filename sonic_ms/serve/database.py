"""The database of the service: one SQLite file, and a connection a thread. postgres.py has the same for many servers.

Statements are written once, in what both understand, with ? for a value.
"""

import contextlib
import math
import sqlite3
import threading
import time
from pathlib import Path

from sonic_ms.errors import UsageError
from sonic_ms.serve.problems import Unavailable
from sonic_ms.serve.schema import migrate

FILE = "jobs.sqlite3"
BUSY = 10.0  # seconds to wait for another writer


def open_database(address, folder):
    """The Database at postgresql://..., or without an address the file in `folder`. Raises UsageError, EngineError."""
    if address is None:
        return Database(folder)
    from sonic_ms.serve.postgres import Postgres

    return Postgres(address)


class Database:
    """Connections to the file in `folder`, one a thread. Write inside `with database.transaction() as connection`.

    shared: other servers may use it too. back_at: time.monotonic() when it could be reached again after it could not.
    Everything raises Unavailable while it cannot be reached.
    """

    shared, back_at = False, -math.inf
    serial, flag = "INTEGER PRIMARY KEY AUTOINCREMENT", "--data"
    now = staticmethod(time.time)  # the clock that all servers of a database share

    def __init__(self, folder):
        self.path = self.name = Path(folder) / FILE
        self._local = threading.local()
        self._all, self._lock = [], threading.Lock()
        try:
            self.connection.execute("PRAGMA journal_mode=WAL")
            migrate(self)
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{self.path}: cannot be used ({error}); give another --data") from error

    @property
    def connection(self):
        """This thread's connection, in autocommit mode."""
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous=FULL")  # a row that was answered for survives a power cut
            self._local.connection = connection
            with self._lock:
                self._all.append(connection)
        return self._local.connection

    def version(self, connection):
        """Of the tables; 0 when there are none."""
        return connection.execute("PRAGMA user_version").fetchone()[0]

    def keep_version(self, connection, version):
        connection.execute(f"PRAGMA user_version={version}")

    @contextlib.contextmanager
    def transaction(self, alone=True, durable=True):
        """All or nothing. alone: and nobody else's transaction meanwhile. durable: written before it returns; without,
        a crash of the database may take it back. SQLite has no other than alone and durable ones."""
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:  # another writer takes longer than BUSY
            raise Unavailable("database", f"the database cannot be written ({error})") from error
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @contextlib.contextmanager
    def leading(self, what):
        """Whether this server is the one that does `what` now; nobody else is until the end of the block."""
        yield True

    def rows(self, statement, *values):
        return self.connection.execute(statement, values).fetchall()

    def row(self, statement, *values):
        """The first row or None."""
        return self.connection.execute(statement, values).fetchone()

    def check(self):
        """Raises Unavailable when the database cannot be reached."""
        self.row("SELECT 1 AS one")

    def close(self):
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()
