"""Where the files of the service lie: by tenant and by random names, never by a name that somebody sent.

Two things are told apart. `Folders` is a server's own: the data folder, and in it the work of each attempt. A file
store holds what a row of the database knows, under the keys of `upload_key` and `result_key`, and may be shared by many
servers: `LocalFiles`, a folder, or `objects.S3Files`, a bucket. Both have the same methods; see LocalFiles.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

from sonic_ms.errors import OutputError, UsageError
from sonic_ms.files.temporary import PREFIX, Temporary
from sonic_ms.serve.problems import Unavailable

WORK, TENANTS, UPLOADS, RESULTS = "work", "tenants", "uploads", "results"
BLOCK = 1 << 20  # bytes


def upload_key(tenant, name):
    return f"{tenant}/{UPLOADS}/{name}"


def result_key(tenant, name):
    return f"{tenant}/{RESULTS}/{name}"


def open_files(address):
    """The file store at `address`: a folder, or s3://BUCKET/PREFIX. Raises UsageError, OutputError, EngineError."""
    address = str(address)
    if address.startswith("s3://"):
        from sonic_ms.serve.objects import S3Files

        return S3Files(address)
    if "://" in address:
        raise UsageError(f"--files {address}: expected a folder or s3://BUCKET/PREFIX")
    return LocalFiles(address)


class Folders:
    """The data folder of one server, and the work of its attempts."""

    def __init__(self, data):
        self.data = Path(data)
        for folder in (self.data, self.data / WORK):
            _make(folder, "data folder", "--data")

    def work_of(self, job):
        return self.data / WORK / f"{job.id}-{job.attempt}"

    def drop_work(self, job):
        shutil.rmtree(self.work_of(job), ignore_errors=True)

    def work(self, job):
        """A fresh folder for one attempt of a job."""
        folder = self.work_of(job)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        return folder

    def look(self):
        """Context manager: a folder for the files of a look at them."""
        return Temporary(self.data / WORK, is_folder=True)

    def clear_work(self):
        """Remove what attempts left that nobody makes any more."""
        for one in (self.data / WORK).iterdir():
            shutil.rmtree(one, ignore_errors=True)


class LocalFiles:
    """Files below FOLDER/tenants. `address` opens the same store in another process (`open_files`).

    Any method raises problems.Unavailable while a store cannot be reached: nothing was done then, and doing
    it again is right. OSError is a full or broken disk of this machine.
    """

    def __init__(self, folder):
        self.address = str(Path(folder).expanduser().absolute())
        self.root = Path(self.address, TENANTS)
        for one in (self.root.parent, self.root):
            _make(one, "folder of files", "--files")

    def path(self, key):
        """Where a key lies; its folder is made if need be."""
        path = self.root / key
        for one in (path.parent.parent, path.parent):
            one.mkdir(exist_ok=True, mode=0o700)
        return path

    def put(self, key, reader):
        """Store what reader.read(n) gives to its end, whole or not at all; what it raises goes through."""
        final = self.path(key)
        with Temporary(final.parent) as temporary:
            with open(temporary, "wb") as out:
                while block := reader.read(BLOCK):
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temporary, final)

    def take(self, key, path):
        """Store a finished file of this machine, which may be gone from its place afterwards."""
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        place(path, self.path(key))

    def fetch(self, key, folder):
        """Path of the file on this machine: where it lies, or a copy that was made in `folder`. FileNotFoundError."""
        path = self.root / key
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def local(self, key):
        """Path of a file that lies on this machine; None where the store has `read` instead."""
        return self.root / key

    def size(self, key):
        """Bytes. FileNotFoundError."""
        return os.stat(self.root / key).st_size

    def remove(self, key):
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / key)

    def stored(self):
        """(key, seconds since it was stored) of every file, in no order."""
        now = time.time()
        for path in self.root.glob("*/*/*"):
            with contextlib.suppress(FileNotFoundError):
                if not path.name.startswith(PREFIX):
                    yield path.relative_to(self.root).as_posix(), now - path.lstat().st_mtime

    def check(self):
        """Raises Unavailable when the store cannot be reached."""


def discard(files, key):
    """Remove a file that no row knows any more; where the store cannot be reached, the janitor's sweep finds it."""
    with contextlib.suppress(Unavailable):
        files.remove(key)


def _make(folder, what, flag):
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OutputError(f"{what} {folder}: cannot be made ({error.strerror}); choose another {flag}") from error


def place(made, output):
    """Give a finished file its name, whole or not at all, on any disk."""
    try:
        os.replace(made, output)
    except OSError:
        with Temporary(Path(output).absolute().parent, Path(output).suffix) as temporary:
            shutil.copyfile(made, temporary)
            os.replace(temporary, output)
