"""What a job costs the database: transactions and their time, bytes of log and of disk, counted on a real PostgreSQL.

    python -m bench.cluster_cost --jobs 100

A server in this process with the worker that pretends makes the jobs one after the other, from the request to the day
its files and rows go. Prints one line of JSON: of `alone`, the transactions that only one at a time of all servers can
be in, of the others (`beside`) and of one report of progress and one renewal of leases by themselves.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from starlette.testclient import TestClient

from sonic_ms.serve import slots
from sonic_ms.serve.app import create_app
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.postgres import Postgres
from sonic_ms.serve.settings import Settings
from tests.support.postgres import PostgresServer

FAKE = (sys.executable, str(Path(__file__).parent.parent / "tests" / "serve" / "fake_worker.py"))
DAY = 86400.0


class Counted(Postgres):
    """Keeps (statements, seconds) of every transaction, by what it is. Its begin and its end are statements too."""

    spent, lock = {}, threading.Lock()

    @contextlib.contextmanager
    def transaction(self, alone=True, durable=True):
        with contextlib.ExitStack() as stack:
            session = Statements(stack.enter_context(super().transaction(alone, durable)))
            started = time.perf_counter()  # it has the lock
            yield session
            stack.close()
            with self.lock:
                kind = "alone" if alone else "beside"
                self.spent.setdefault(kind, []).append((session.count + 2, time.perf_counter() - started))


class Statements:
    def __init__(self, session):
        self.session, self.count = session, 0

    def execute(self, *what):
        self.count += 1
        return self.session.execute(*what)


def processor_ms(server):
    """Milliseconds that the database's processes have computed, those that have ended too."""
    parent = int((server.home / "data" / "postmaster.pid").read_text().split()[0])
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(path.parent.name) == parent:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == parent:
                ticks += sum(map(int, fields[11:13]))
    return 1000 * ticks / os.sysconf("SC_CLK_TCK")


def numbers(connection):
    """(bytes of log ever written, bytes of the database on disk)."""
    log = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()[0]
    return int(log), connection.execute("SELECT pg_database_size(current_database())").fetchone()[0]


def whole_lives(server, url, count, connection):
    """Per job: transactions, statements, milliseconds, bytes; from request to end, and until it is forgotten."""
    files = {"input_reference": ("me.jpg", b"image"), "audio_reference": ("me.wav", b"audio")}
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data=Path(folder), database=url))
        with TestClient(app, base_url="http://localhost") as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)

            def made():
                return connection.execute("SELECT count(*) FROM jobs WHERE state = 'completed'").fetchone()[0]

            def part(do):
                Counted.spent.clear()
                before, worked = numbers(connection), processor_ms(server)
                do()
                after, worked = numbers(connection), processor_ms(server) - worked
                found = {}
                for kind, ones in Counted.spent.items():
                    statements, seconds = zip(*ones)
                    found[kind] = {"transactions": len(ones) / count, "statements": sum(statements) / count,
                                   "ms each": 1000 * statistics.median(seconds)}  # fmt: skip
                return found | {
                    "processor_ms": worked / count,
                    "log_bytes": (after[0] - before[0]) / count,
                    "disk_bytes": (after[1] - before[1]) / count,
                }

            def make():
                for number in range(count):
                    assert client.post("/v1/videos", files=files).status_code == 202
                    while made() <= number:
                        time.sleep(0.01)

            lived = part(make)
            gone = part(lambda: app.state.service.janitor.tidy(time.time() + 60 * DAY))
            return lived, gone


def small_ones(server, database, count, connection):
    """Milliseconds and bytes of log of a report of progress and of a renewal of one job."""
    jobs = Jobs(database)
    jobs.add("a", "sonic-edge", {}, "upl_i", "upl_a", {"frames": 250})
    job = jobs.claim("server")
    found = {}
    for name, do in (("progress", lambda n: jobs.progress(job, "frames", n, 250)),
                     ("renewal", lambda n: jobs.renew("server", [job.id]))):  # fmt: skip
        before, worked, spent = numbers(connection)[0], processor_ms(server), []
        for number in range(count):
            started = time.perf_counter()
            do(number)
            spent.append(time.perf_counter() - started)
        found[name] = {"ms": 1000 * statistics.median(spent), "processor_ms": (processor_ms(server) - worked) / count,
                       "log_bytes": (numbers(connection)[0] - before) / count}  # fmt: skip
    return found


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.3g}") if value < 1000 else round(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    args = parser.parse_args()
    slots.WORKER = FAKE
    server = PostgresServer(fast=False)
    try:
        url = server.start().create("cost")
        database = Postgres(url)
        import sonic_ms.serve.service as service

        service.open_database = lambda address, folder: Counted(address)
        with psycopg.connect(url, autocommit=True) as connection:
            small = small_ones(server, database, args.jobs, connection)
            with database.transaction() as one:
                one.execute("DELETE FROM jobs")
            lived, gone = whole_lives(server, url, args.jobs, connection)
        database.close()
    finally:
        server.remove()
    print(json.dumps(rounded({"jobs": args.jobs, "to its end": lived, "until forgotten": gone, **small})))


if __name__ == "__main__":
    main()
