"""Servers that share a PostgreSQL and a bucket: each job once, and nothing lost while one of the two is away."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sonic_ms.cli import main
from sonic_ms.serve import idempotency
from sonic_ms.serve.database import open_database
from sonic_ms.serve.files import open_files
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.problems import Problem, Unavailable
from sonic_ms.serve.service import Service
from tests.serve.test_webhooks import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.needs("postgresql")]
FAKE_SERVER = Path(__file__).parent / "fake_server.py"


@pytest.fixture
def two(start, cluster, tmp_path):
    """Clients of two servers."""
    with start(tmp_path / "one", **cluster) as one, start(tmp_path / "two", **cluster) as two:
        yield one, two


def until(what, timeout=20.0):
    """The first true thing that what() gives."""
    end = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def ends(client, name):
    """How often the end of a job was written."""
    return sum(kind in ("completed", "failed", "canceled") for _, kind, _ in client.service.jobs.events(name))


def made_by(client):
    """How many jobs the workers of a server have made."""
    return client.service.metrics.jobs.labels("sonic-edge", "completed")._value.get()


def test_both_make_what_one_was_asked_for(two):
    one, other = two
    names = [one.make(6).json()["id"] for _ in range(5)]
    for name in names:
        assert other.until(name, "completed", timeout=40)["attempt"] == 1
        assert other.get(f"/v1/videos/{name}/content").content == name.encode() * 100
        assert ends(one, name) == 1
    until(lambda: made_by(one) + made_by(other) == 5)
    assert min(made_by(one), made_by(other)) >= 1


def test_events_and_cancel_reach_the_other_server(start, cluster, tmp_path):
    with start(tmp_path / "one", **cluster) as one:
        name = one.make(4).json()["id"]
        one.until(name, "in_progress")
        with start(tmp_path / "two", **cluster) as other:
            kinds = []

            def follow():
                with other.stream("GET", f"/v1/videos/{name}/events") as answer:
                    kinds.extend(line[7:] for line in answer.iter_lines() if line.startswith("event: "))

            following = threading.Thread(target=follow)
            following.start()
            time.sleep(1)
            assert other.post(f"/v1/videos/{name}/cancel").status_code == 202
            started = time.monotonic()
            assert other.until(name, "canceled")
            following.join(10)
            assert time.monotonic() - started < 10 and not following.is_alive()
            assert kinds[:2] == ["status", "status"] and "progress" in kinds and kinds[-1] == "canceled"


def test_a_webhook_is_sent_by_one_of_them(monkeypatch, start, cluster, tmp_path):
    monkeypatch.setattr("sonic_ms.serve.webhooks.LOOK", 0.05)
    with Receiver(204, pause=1.0) as receiver, contextlib.ExitStack() as stack:
        settings = {"private_webhooks": True, **cluster}
        one, other = (stack.enter_context(start(tmp_path / name, **settings)) for name in ("one", "two"))
        names = {one.make(webhook_url=receiver.url).json()["id"] for _ in range(3)}
        for name in names:
            until(lambda name=name: other.get(f"/v1/videos/{name}").json()["webhook"]["state"] == "delivered")
        assert sorted(json.loads(body)["data"]["id"] for _, body in receiver.got) == sorted(names)


def test_a_key_that_is_in_flight_is_so_on_every_server(two, monkeypatch):
    one, other = two
    waiting, go_on = threading.Event(), threading.Event()

    def check(self, *_):
        waiting.set()
        assert go_on.wait(20)

    monkeypatch.setattr(Service, "check", check)
    headers, answers = {"Idempotency-Key": "k"}, []
    first = threading.Thread(target=lambda: answers.append(one.make(headers=headers)))
    first.start()
    assert waiting.wait(20)
    busy = other.make(headers=headers)
    assert (busy.status_code, busy.json()["code"]) == (409, "idempotency_key_in_flight")
    assert busy.headers["retry-after"] == "1"
    go_on.set()
    first.join()
    again = other.make(headers=headers)
    assert again.status_code == 202 and again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == answers[0].json()["id"]
    assert other.make(7, headers=headers).json()["code"] == "idempotency_key_reused"
    assert len(one.get("/v1/videos").json()["data"]) == 1


def test_a_key_of_a_request_that_came_to_nothing_is_free(two):
    one, other = two
    headers = {"Idempotency-Key": "k"}
    assert one.make(min_resolution="many", headers=headers).status_code == 422
    assert one.make(input_reference="upl_none", headers=headers).status_code == 404
    assert other.make(headers=headers).status_code == 202


def test_a_key_is_released_when_the_database_is_back(cluster, tmp_path, monkeypatch):
    """Not five minutes later: the request that held it was refused because the database was away."""
    database = open_database(cluster["database"], tmp_path)
    assert idempotency.hold(database, "a", "k") is None
    real, away = database.transaction, [True, True]

    def transaction(**how):
        if away and away.pop():
            raise Unavailable("database", "away")
        return real(**how)

    monkeypatch.setattr(database, "transaction", transaction)
    idempotency.release(database, "a", "k")

    def free():
        with contextlib.suppress(Problem):
            return idempotency.hold(database, "a", "k") is None

    until(free, timeout=10)
    database.close()


def test_one_tidies_at_a_time(cluster, tmp_path):
    one, other = (open_database(cluster["database"], tmp_path) for _ in range(2))
    with one.leading("janitor") as mine:
        assert mine
        with other.leading("janitor") as theirs:
            assert not theirs
    with other.leading("janitor") as theirs:
        assert theirs
    one.close(), other.close()


def test_files_without_a_row_go_when_they_are_old(start, cluster, tmp_path):
    """Not at the start, as with one server: another one may just be storing them."""
    files = open_files(cluster["files"])
    (tmp_path / "left").write_bytes(b"x")
    files.take("local/uploads/upl_left", tmp_path / "left")
    with start(**cluster) as client:
        name = client.make().json()["id"]
        client.until(name, "completed")
        stored = [key for key, _ in files.stored()]
        assert len(stored) == 4 and "local/uploads/upl_left" in stored
        client.service.janitor.sweep(60)
        assert len(list(files.stored())) == 4
        client.service.janitor.sweep(0)
        assert sorted(key for key, _ in files.stored()) == sorted(set(stored) - {"local/uploads/upl_left"})


def test_many_claims_at_once_give_each_job_once(cluster, tmp_path):
    """And tenants take turns, whoever claims."""
    databases = [open_database(cluster["database"], tmp_path) for _ in range(4)]
    queue = Jobs(databases[0])
    for tenant, count in (("many", 30), ("few", 6)):
        for _ in range(count):
            queue.add(tenant, "sonic-edge", {}, "upl_i", "upl_a", {})
    claimed, lock = [], threading.Lock()

    def claim(database):
        jobs = Jobs(database)
        while job := jobs.claim("server"):
            with lock:
                claimed.append(job)

    threads = [threading.Thread(target=claim, args=(database,)) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in claimed}) == len(claimed) == 36
    turns = databases[0].rows("SELECT tenant FROM jobs ORDER BY started_at, seq")
    assert sum(row["tenant"] == "few" for row in turns[:12]) == 6
    for database in databases:
        database.close()


def test_a_store_that_refuses_loses_nothing(start, cluster, s3):
    with start(**cluster) as client:
        fetched = client.make(6).json()["id"]
        while client.until(fetched, "in_progress")["stage"] != "frames":
            time.sleep(0.02)
        waiting = client.make().json()["id"]
        s3.refusing = (503, "SlowDown")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "files_unavailable")
        refused = client.make()
        assert (refused.status_code, refused.json()["code"]) == (503, "files_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        time.sleep(4)
        assert client.get(f"/v1/videos/{fetched}").json()["state"] == "in_progress"  # made, and kept until it is stored
        s3.refusing = None
        for name in (fetched, waiting):
            assert client.until(name, "completed")["attempt"] == 1
            assert client.get(f"/v1/videos/{name}/content").content == name.encode() * 100
        assert client.get("/readyz").status_code == 200
        assert len(client.get("/v1/videos").json()["data"]) == 2  # the refused one left nothing
        assert len(list(client.service.files.stored())) == 6


def test_a_database_that_restarts_loses_nothing(start, cluster, postgres):
    with start(**cluster) as client:
        running, waiting = (client.make(6).json()["id"] for _ in range(2))
        while client.until(running, "in_progress")["stage"] != "frames":
            time.sleep(0.02)
        postgres.stop()
        try:
            ready, refused = client.get("/readyz"), client.make()
            assert (ready.status_code, ready.json()["status"]) == (503, "database_unavailable")
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
            assert int(refused.headers["retry-after"]) > 0 and client.get("/healthz").status_code == 200
            time.sleep(3)  # meanwhile the worker has made it
        finally:
            postgres.start()
        for name in (running, waiting):
            assert client.until(name, "completed", timeout=30)["attempt"] == 1
            assert ends(client, name) == 1
        assert client.get("/readyz").status_code == 200


def test_an_end_that_was_written_may_be_said_again(cluster, tmp_path):
    """Its answer got lost with the connection."""
    jobs = Jobs(open_database(cluster["database"], tmp_path))
    jobs.add("a", "sonic-edge", {}, "upl_i", "upl_a", {})
    job, result = jobs.claim("server"), {"file": "f", "bytes": 1, "work_seconds": 1.0}
    assert jobs.finish(job, "completed", result) and jobs.finish(job, "completed", result)
    assert not jobs.finish(job, "completed", result | {"file": "another"})
    jobs.database.close()


def test_a_server_that_dies_gives_its_jobs_to_the_other(start, cluster, tmp_path):
    command = [sys.executable, str(FAKE_SERVER), "--data", str(tmp_path / "one"), "--database", cluster["database"]]
    with subprocess.Popen([*command, "--files", cluster["files"]], stdout=subprocess.PIPE, text=True) as dying:
        assert "http://" in dying.stdout.readline()
        with start(tmp_path / "two", **cluster) as client:
            slots = client.service.slots
            names = [client.make(6).json()["id"] for _ in range(6)]
            owners = "SELECT owner FROM jobs WHERE state = 'in_progress'"
            until(lambda: any(row["owner"] != slots.owner for row in client.service.database.rows(owners)), 40)
            dying.send_signal(signal.SIGKILL)
            dying.wait()
            with client.service.database.transaction() as connection:  # 15 seconds later
                connection.execute("UPDATE jobs SET lease_until = 1 WHERE owner <> ?", (slots.owner,))
            client.service.janitor.tidy()
            videos = [client.until(name, "completed", timeout=60) for name in names]
            assert {video["attempt"] for video in videos} == {1, 2}
            assert all(ends(client, name) == 1 for name in names)


def refused(capsys, *arguments, command="serve"):
    """(exit code, the line on stderr) of a command that cannot begin."""
    code = main([command, *arguments])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


def test_wrong_databases_are_named_in_one_line(postgres, cluster, tmp_path, capsys):
    data = ("--data", str(tmp_path))
    for url, code, words in (
        ("mysql://host/name", 2, "expected postgresql://"),
        ("postgresql://%%%", 2, "not an address"),
        (postgres.url("missing"), 2, 'database "missing" does not exist'),
        (postgres.url("postgres", "nobody"), 2, 'role "nobody" does not exist'),
        ("postgresql://127.0.0.1:1/name", 10, "cannot be reached"),
    ):
        found = refused(capsys, *data, "--database", url)
        assert found[0] == code and words in found[1], found
    assert "does not exist" in refused(capsys, "list", *data, "--database", postgres.url("missing"), command="keys")[1]
    secret = "postgresql://me:secret@127.0.0.1:1/name"
    assert "secret" not in refused(capsys, *data, "--database", secret)[1]


def test_a_user_without_rights_is_told(postgres, cluster, tmp_path, capsys):
    with contextlib.suppress(Exception):  # it is there from the test before
        postgres.admin("CREATE USER guest")
    name = cluster["database"].rpartition("/")[2]
    code, line = refused(capsys, "--data", str(tmp_path), "--database", postgres.url(name, "guest"))
    assert code == 2 and "permission denied" in line


def test_wrong_buckets_are_named_in_one_line(s3, cluster, tmp_path, capsys):
    def found(files):
        return refused(capsys, "--data", str(tmp_path), "--port", "0", "--files", files)

    assert found(f"s3://missing/x?endpoint={s3.url}")[1].count("no such bucket") == 1
    for address, words in (
        ("s3://", "expected s3://BUCKET/PREFIX"),
        ("s3://bucket?b=c", "expected s3://BUCKET/PREFIX"),
        ("ftp://x", "expected a folder or s3://"),
        ("s3://bucket?endpoint=x", "Invalid endpoint"),
        (f"s3://B!?endpoint={s3.url}", "cannot be the name of a bucket"),
    ):
        code, line = found(address)
        assert code == 2 and words in line, line
    code, line = found("s3://bucket?endpoint=http://127.0.0.1:1")
    assert code == 10 and "cannot be reached" in line
    s3.refusing = (403, "AccessDenied")
    code, line = found(cluster["files"])
    assert code == 2 and "PutObject" in line


def test_the_extra_is_named_when_it_is_missing(cluster, tmp_path, monkeypatch, capsys):
    from importlib.util import find_spec

    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("psycopg", "boto3") else find_spec(name)
    )
    for flag in ("database", "files"):
        code, line = refused(capsys, "--data", str(tmp_path), f"--{flag}", cluster[flag])
        assert code == 10 and "pip install 'sonic_ms[cluster]'" in line


def test_nul_in_a_request_is_no_failure(start, cluster):
    with start(**cluster) as client:
        assert client.get("/v1/videos/a%00b").status_code == 404
        assert client.make(prompt="a\0b").status_code == 202
