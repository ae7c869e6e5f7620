"""Two servers on one PostgreSQL and one bucket: 200 jobs of two tenants; then 200 more while the database is killed and
the bucket refuses.

    python -m bench.cluster_faults --jobs 200

The servers are the real program with a worker that only pretends (two seconds a job), so the figures are the queue's
and the store's. PostgreSQL is real and keeps its promises (fsync), the bucket is moto's. Fails when a job is lost or
ends twice, or its video is not what was made; when a file without a row is left; when /readyz did not say what was
missing.
Prints a line of JSON a part.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.serve.database import open_database
from sonic_ms.serve.files import open_files
from sonic_ms.serve.tenants import Tenants
from tests.support.postgres import PostgresServer
from tests.support.s3 import KEYS, S3Server

SERVER = Path(__file__).parent.parent / "tests" / "serve" / "fake_server.py"
TWO_SECONDS = 6  # the seed that the pretending worker takes for a job of two seconds


class Server:
    """The program, with the keys of two tenants."""

    def __init__(self, data, flags):
        command = [sys.executable, str(SERVER), "--data", str(data), *flags]
        with open(f"{data}.log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(Path(f"{data}.log").read_text())
        self.http = httpx.Client(base_url=line.split()[-1], timeout=30)

    def ready(self):
        """ "ready", or what /readyz says is missing."""
        return self.http.get("/readyz").json()["status"]

    def end(self):
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()


def patiently(ask):
    """The answer of ask(), asked again while it is 503, or 409 because its key is in flight: (answer, how often
    it was refused)."""
    for refused in range(1000):
        answer = ask()
        if answer.status_code == 202:
            return answer, refused
        if answer.json()["code"] not in ("database_unavailable", "files_unavailable", "idempotency_key_in_flight"):
            raise SystemExit(answer.text)
        time.sleep(min(1.0, float(answer.headers["retry-after"])))
    raise SystemExit("refused for ever")


class Load:
    """Jobs of two tenants, sent to both servers in turn."""

    def __init__(self, servers, keys):
        self.servers, self.headers = servers, {name: {"Authorization": f"Bearer {key}"} for name, key in keys.items()}
        self.names, self.refused = [], 0
        self.files = {name: self._uploads(name) for name in keys}

    def _uploads(self, tenant):
        found = {}
        for kind, path in (("image", DEMO_IMAGE), ("audio", DEMO_AUDIO)):
            answer = self.servers[0].http.post("/v1/uploads", files={"file": path.open("rb")}, data={"kind": kind},
                                               headers=self.headers[tenant])  # fmt: skip
            found[f"{'input' if kind == 'image' else 'audio'}_reference"] = answer.json()["id"]
        return found

    def send(self, tenant, count, pause=0.0):
        for number in range(count):
            http = self.servers[number % 2].http
            headers = self.headers[tenant] | {"Idempotency-Key": f"{tenant} {len(self.names)}"}
            body = {**self.files[tenant], "seed": TWO_SECONDS}
            answer, refused = patiently(lambda: http.post("/v1/videos", json=body, headers=headers))  # noqa: B023
            self.refused += refused
            self.names.append((tenant, answer.json()["id"]))
            time.sleep(pause)

    def wait(self, database, seconds):
        end = time.monotonic() + seconds
        while database.row("SELECT 1 AS one FROM jobs WHERE state IN ('queued', 'in_progress')"):
            if time.monotonic() > end:
                raise SystemExit("jobs are left")
            time.sleep(0.5)

    def wrong(self, database, files):
        """What is wrong with the jobs, as texts."""
        found = []
        rows = {row["id"]: row for row in database.rows("SELECT * FROM jobs")}
        if len(rows) != len(self.names):
            found.append(f"{len(rows)} jobs in the table, {len(self.names)} were sent")
        counts = database.rows(
            "SELECT job, count(*) AS n FROM events WHERE name IN ('completed', 'failed', 'canceled') GROUP BY job"
        )
        ends = {row["job"]: row["n"] for row in counts}
        for tenant, name in self.names:
            row = rows.get(name)
            if row is None or row["state"] != "completed" or ends.get(name) != 1:
                found.append(f"{name}: {row and row['state']}, ended {ends.get(name)} times")
                continue
            http = self.servers[len(found) % 2].http
            content = http.get(f"/v1/videos/{name}/content", headers=self.headers[tenant]).content
            if content != name.encode() * 100:
                found.append(f"{name}: {len(content)} bytes, which are not its video")
        known = {json.loads(row["result"])["file"] for row in rows.values() if row["result"]}
        known |= {row["id"] for row in database.rows("SELECT id FROM uploads")}
        if stray := {key.rpartition("/")[2] for key, _ in files.stored()} - known:
            found.append(f"files without a row: {len(stray)}")
        return found


def shares(database, since):
    """The part of the starts that the small tenant had, from when all its jobs were there until the last one began."""
    rows = database.rows("SELECT tenant, started_at FROM jobs WHERE started_at > ? ORDER BY started_at", since)
    last = max(number for number, row in enumerate(rows) if row["tenant"] == "few")
    return sum(row["tenant"] == "few" for row in rows[: last + 1]) / (last + 1)


def faults(load, servers, postgres, s3, args):
    """Jobs that come while things fail; what /readyz said meanwhile."""
    said = {name: Counter() for name in ("before", "database", "restarting", "files")}
    now, going = ["before"], threading.Event()

    def watch():
        http = [httpx.Client(base_url=server.http.base_url, timeout=30) for server in servers]
        while not going.wait(0.5):
            for one in http:
                before = now[0]
                status = one.get("/readyz").json()["status"]
                if now[0] == before:
                    said[before][status] += 1

    def fail():
        time.sleep(5)
        now[0] = "restarting"
        postgres.stop("immediate")
        now[0] = "database"
        time.sleep(args.database)
        now[0] = "restarting"
        postgres.start()
        time.sleep(5)
        s3.refusing = (503, "SlowDown")
        now[0] = "files"
        time.sleep(args.files)
        now[0] = "restarting"
        s3.refusing = None

    threads = [threading.Thread(target=one) for one in (watch, fail)]
    for thread in threads:
        thread.start()
    load.send("many", args.jobs, pause=60 / args.jobs)
    threads[1].join()
    return said, lambda: (going.set(), threads[0].join())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="of each part (default: 200)")
    parser.add_argument("--database", type=float, default=10.0, help="seconds that the database is away (default: 10)")
    parser.add_argument("--files", type=float, default=30.0, help="seconds that the bucket refuses (default: 30)")
    args = parser.parse_args()
    os.environ.update(KEYS)
    postgres, s3 = PostgresServer(fast=False), S3Server()
    try:
        postgres.start()
        flags = ["--database", postgres.create("bench"), "--files", s3.create("bench")]
        with tempfile.TemporaryDirectory() as folder:
            database, files = open_database(flags[1], folder), open_files(flags[3])
            keys = {name: Tenants(database).add_key(name) for name in ("many", "few")}
            servers = [Server(Path(folder, name), flags) for name in ("one", "two")]
            try:
                bad = parts(servers, keys, database, files, postgres, s3, args)
            finally:
                for server in servers:
                    server.end()
                database.close()
    finally:
        postgres.remove()
        s3.stop()
    return 1 if bad else 0


def parts(servers, keys, database, files, postgres, s3, args):
    load = Load(servers, keys)
    started = time.monotonic()
    load.send("many", args.jobs * 3 // 4)
    load.send("few", args.jobs - args.jobs * 3 // 4)
    since = time.time()
    load.wait(database, 20 * args.jobs)
    bad = load.wrong(database, files)
    events = database.rows("SELECT data FROM events WHERE name = 'status'")
    claims = sum(json.loads(row["data"])["state"] == "in_progress" for row in events)
    print(json.dumps({"part": "two servers", "jobs": len(load.names), "claims": claims, "wrong": bad,
                      "seconds": round(time.monotonic() - started, 1),
                      "share of the small tenant": round(shares(database, since), 3)}), flush=True)  # fmt: skip

    started = time.monotonic()
    said, stop = faults(load, servers, postgres, s3, args)
    load.wait(database, 20 * args.jobs)
    stop()
    wrong = load.wrong(database, files)
    if set(said["database"]) != {"database_unavailable"} or set(said["files"]) != {"files_unavailable"}:
        wrong.append("/readyz did not say what was missing")
    again = database.row("SELECT count(*) AS n FROM jobs WHERE attempt > 1")["n"]
    print(json.dumps({"part": "faults", "jobs": args.jobs, "refused and sent again": load.refused, "made twice": again,
                      "readyz": {name: dict(counter) for name, counter in said.items()}, "wrong": wrong,
                      "seconds": round(time.monotonic() - started, 1)}), flush=True)  # fmt: skip
    return bad + wrong


if __name__ == "__main__":
    sys.exit(main())
