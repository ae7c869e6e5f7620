"""A real PostgreSQL of its own, on a free port of this machine, for tests and benches."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

USER = "sonic"


def folder():
    """The folder of PostgreSQL's programs. Raises FileNotFoundError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))  # Debian keeps them from the PATH
    program = found[-1] if found else shutil.which("pg_ctl")
    if not program:
        raise FileNotFoundError("no command pg_ctl; apt-get install postgresql")
    return Path(program).parent


class PostgresServer:
    """Started by `start`. fast: without fsync, for tests that do not restart it."""

    def __init__(self, fast=True):
        self.fast = fast
        self.programs = folder()
        self.home = Path(tempfile.mkdtemp(prefix="sonic-ms-postgres-"))
        self.account = {}
        if os.geteuid() == 0:  # it does not run as root
            self.account = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(self.home, "postgres", "postgres")
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")

    def _run(self, program, *arguments):
        said = self.home / f"{program}.log"
        with open(said, "ab") as out:  # a pipe would be held open by the server
            done = subprocess.run([self.programs / program, *arguments], cwd=self.home, stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=subprocess.STDOUT, **self.account)  # fmt: skip
        if done.returncode:
            raise RuntimeError(said.read_text() + self.log())

    def log(self):
        path = self.home / "log"
        return path.read_text() if path.exists() else ""

    def start(self):
        options = f"-p {self.port} -k '{self.home}' -c listen_addresses=127.0.0.1"
        if self.fast:
            options += " -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", options, "start")
        return self

    def stop(self, how="fast"):
        """how: as pg_ctl's -m; "immediate" is a crash."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", how, "stop")

    def url(self, name, user=USER):
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def admin(self, statement):
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    def create(self, name):
        """The address of a new database."""
        self.admin(f"CREATE DATABASE {name}")
        return self.url(name)

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)
