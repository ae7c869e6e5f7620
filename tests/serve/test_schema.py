"""Tables of an older version become those of this one; newer ones are left alone."""

import json
import re
import sqlite3
from pathlib import Path

from sonic_ms.cli import main
from sonic_ms.serve import storage
from sonic_ms.serve.database import FILE, open_database
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.schema import VERSION

FIRST = (Path(__file__).parent / "schema_1.sql").read_text()
ROWS = f"""
INSERT INTO jobs (id, tenant, state, model, options, image, audio, extra, created_at, result) VALUES
    ('video_1', 'a', 'completed', 'sonic-edge', '{{}}', 'upl_1', 'upl_2', '{{}}', 1.5,
     '{json.dumps({"file": "video_1-1.mp4", "bytes": 700})}'),
    ('video_2', 'a', 'queued', 'sonic-edge', '{{}}', 'upl_1', 'upl_2', '{{}}', 2.5, NULL);
INSERT INTO uploads VALUES
    ('upl_1', 'a', 'image', 'me', 30, 'x', 1.5, 1), ('upl_2', 'b', 'audio', 'me', 5, 'x', 1.5, 1);
"""


def old(place, folder):
    """Tables of version 1 with some rows."""
    if not place:
        connection = sqlite3.connect(folder / FILE)
        connection.executescript(f"{FIRST}; {ROWS}; PRAGMA user_version=1")
        connection.close()
        return
    import psycopg

    script = FIRST.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    script = re.sub(r"\bREAL\b", "DOUBLE PRECISION", re.sub(r"\bINTEGER\b", "BIGINT", script))
    with psycopg.connect(place["database"]) as connection:
        connection.execute(f"{script} {ROWS}")
        connection.execute("CREATE TABLE schema_version (version BIGINT NOT NULL)")
        connection.execute("INSERT INTO schema_version VALUES (1)")


def test_the_first_version_goes_on(place, tmp_path):
    old(place, tmp_path)
    for _ in range(2):  # the second time nothing is to be done
        database = open_database(place.get("database"), tmp_path)
        assert storage.used(database, "a") == {"uploads": 30, "results": 700}
        assert storage.used(database) == {"uploads": 35, "results": 700}
        database.close()
    jobs = Jobs(open_database(place.get("database"), tmp_path))
    assert [job.id for job in jobs.page("a", 5)[0]] == ["video_2", "video_1"]
    assert jobs.claim("server").id == "video_2"
    jobs.delete("a", "video_1")
    assert storage.used(jobs.database, "a") == {"uploads": 30, "results": 0}
    jobs.database.close()


def test_a_newer_version_is_refused(place, tmp_path, capsys):
    database = open_database(place.get("database"), tmp_path)
    with database.transaction() as connection:
        database.keep_version(connection, VERSION + 1)
    database.close()
    arguments = ["--database", place["database"]] if place else []
    assert main(["keys", "list", "--data", str(tmp_path), *arguments]) == 2
    line = capsys.readouterr().err.strip()
    assert f"newer version of the service ({VERSION + 1}" in line and "\n" not in line


def test_a_file_that_is_no_database(tmp_path, capsys):
    (tmp_path / FILE).write_bytes(b"text" * 1000)
    assert main(["keys", "list", "--data", str(tmp_path)]) == 2
    assert "cannot be used (file is not a database)" in capsys.readouterr().err
