"""The database of many servers: PostgreSQL, with the methods of database.Database.

What SQLite gives by itself, that one transaction writes at a time, an advisory lock gives here; transactions that touch
only their own rows do without it. Connections are few and lent for a statement or a transaction: one that broke is
replaced, and while there is none everything raises Unavailable.
"""

import contextlib
import functools
import importlib.util
import math
import queue
import select
import threading
import time

from sonic_ms.errors import EngineError, UsageError
from sonic_ms.serve.problems import Unavailable
from sonic_ms.serve.schema import migrate

CONNECTIONS = 8  # of one server at most
WAIT = 5.0  # seconds for one of them to be free
USUAL = {  # of a connection, unless the address says otherwise
    "connect_timeout": "3",
    "application_name": "sonic-ms",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # a server that hangs in a transaction does not stop the others
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=15s",
}
LOCKS = {"writing": 0x736F6E69, "janitor": 0x736F6E6A}  # numbers of advisory locks, of one database


@functools.cache
def _translated(statement):
    return statement.replace("?", "%s")


def _clean(value):
    """PostgreSQL's text takes no NUL, which may come in a request."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value


class _Session:
    """A connection as the rest of the service uses SQLite's."""

    def __init__(self, connection):
        self._connection = connection

    def execute(self, statement, values=()):
        return self._connection.execute(_translated(statement), [_clean(one) for one in values] or None)


class Postgres:
    """The database at `address`, postgresql://USER:PASSWORD@HOST:PORT/NAME or whatever else libpq takes as a URL."""

    shared, back_at = True, -math.inf
    serial, flag = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "--database"

    def __init__(self, address):
        self._kind = _driver()
        self._given, self.name = self._read(address)
        self._idle, self._room = queue.LifoQueue(), threading.BoundedSemaphore(CONNECTIONS)
        self._ahead, self._lost, self._closed = 0.0, False, False
        try:
            self._idle.put(self._connect())
            migrate(self)
        except self._kind.OperationalError as error:
            raise _wrong(self.name, error) from error
        except Unavailable as error:
            raise EngineError(f"{self.name}: {error}") from error
        except self._kind.Error as error:
            raise UsageError(f"{self.name}: the tables cannot be made ({_first_line(error)}); check the user's rights, "
                             "or give an empty database") from error  # fmt: skip

    def _read(self, address):
        """(parameters of a connection, the address without its password)."""
        from psycopg.conninfo import conninfo_to_dict

        if not address.startswith(("postgresql://", "postgres://")):
            raise UsageError(f"--database {address[:80]!r}; expected postgresql://USER:PASSWORD@HOST/NAME")
        try:
            given = conninfo_to_dict(address)
        except self._kind.Error as error:
            raise UsageError(f"--database: not an address of PostgreSQL ({_first_line(error)})") from error
        where = "/".join(str(given[name]) for name in ("host", "port", "dbname") if name in given)
        return USUAL | given, f"--database postgresql at {where or 'the default place'}"

    def _connect(self):
        from psycopg.rows import dict_row

        connection = self._kind.connect(**self._given, autocommit=True, row_factory=dict_row)
        asked = time.time()
        theirs = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now").fetchone()["now"]
        self._ahead = theirs - (asked + time.time()) / 2
        if self._lost:
            self._lost, self.back_at = False, time.monotonic()
        return connection

    def now(self):
        """Seconds since 1970 by the database's clock, which its servers share."""
        return time.time() + self._ahead

    @contextlib.contextmanager
    def _lent(self):
        if not self._room.acquire(timeout=WAIT):
            raise Unavailable("database", "all connections to the database are in use")
        connection = None
        try:
            connection = self._idle_one() or self._connect()
            yield _Session(connection)
        except (self._kind.OperationalError, self._kind.InterfaceError, self._kind.InternalError) as error:
            self._lost = self._lost or connection is None or connection.closed
            raise Unavailable("database", f"the database cannot be used ({_first_line(error)})") from error
        finally:
            if connection is not None:
                self._give_back(connection)
            self._room.release()

    def _idle_one(self):
        """A connection that was used before and still stands, or None."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return None
            look = select.poll()
            look.register(connection.fileno(), select.POLLIN)
            if not look.poll(0):
                return connection
            self._lost = True  # nothing is to be read from one that is idle, but its end
            connection.close()

    def _give_back(self, connection):
        idle = not connection.closed and connection.info.transaction_status == self._kind.pq.TransactionStatus.IDLE
        if idle and not self._closed:
            self._idle.put(connection)
        else:
            connection.close()

    def version(self, connection):
        """Of the tables; 0 when there are none."""
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        row = connection.execute("SELECT version FROM schema_version").fetchone()
        return row["version"] if row else 0

    def keep_version(self, connection, version):
        connection.execute("DELETE FROM schema_version")
        connection.execute("INSERT INTO schema_version VALUES (?)", (version,))

    @contextlib.contextmanager
    def transaction(self, alone=True, durable=True):
        """As database.Database.transaction; not alone, other transactions run beside it, and rows are safe only by
        what a statement itself says in its WHERE."""
        begin = "BEGIN"
        if alone:
            begin += f"; SELECT pg_advisory_xact_lock({LOCKS['writing']})"
        if not durable:
            begin += "; SET LOCAL synchronous_commit TO off"
        with self._lent() as session:
            try:
                session.execute(begin)
                yield session
            except BaseException:
                with contextlib.suppress(self._kind.Error):
                    session.execute("ROLLBACK")
                raise
            session.execute("COMMIT")

    @contextlib.contextmanager
    def leading(self, what):
        """As database.Database.leading."""
        with self._lent() as session:
            mine = session.execute("SELECT pg_try_advisory_lock(?) AS mine", (LOCKS[what],)).fetchone()["mine"]
            try:
                yield mine
            finally:
                if mine:
                    session.execute("SELECT pg_advisory_unlock(?)", (LOCKS[what],))

    def rows(self, statement, *values):
        with self._lent() as session:
            return session.execute(statement, values).fetchall()

    def row(self, statement, *values):
        """The first row or None."""
        with self._lent() as session:
            return session.execute(statement, values).fetchone()

    def check(self):
        """Raises Unavailable when the database cannot be reached."""
        self.row("SELECT 1 AS one")

    def close(self):
        self._closed = True
        while not self._idle.empty():
            self._idle.get_nowait().close()


def _driver():
    if importlib.util.find_spec("psycopg") is None:
        raise EngineError("--database postgresql://... needs psycopg; pip install 'sonic_ms[cluster]'")
    import psycopg

    return psycopg


def _first_line(error):
    return " ".join(str(error).partition("\n")[0].split())


def _wrong(name, error):
    """The error of an address that does not lead to a database: the user's, or of what is not there now."""
    text = _first_line(error)
    users = any(
        word in text for word in ("does not exist", "authentication failed", "no password", "denied", "not permitted")
    )
    if users:
        return UsageError(f"{name}: {text}; check user, password and name, and make the database (createdb)")
    return EngineError(f"{name}: cannot be reached ({text}); check host and port, and that it runs")
