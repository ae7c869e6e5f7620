"""Where the files of the service lie: by tenant and by random names, never by a name that somebody sent."""

import contextlib
import os
import shutil
from pathlib import Path

from sonic_ms.errors import OutputError

WORK, TENANTS, UPLOADS, RESULTS = "work", "tenants", "uploads", "results"


class Folders:
    """The data folder. Everything but `work` belongs to a row of the database."""

    def __init__(self, data):
        self.data = Path(data)
        try:
            for folder in (self.data, self.data / WORK, self.data / TENANTS):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"data folder {data}: cannot be made ({error.strerror}); choose another --data"
            ) from error

    def of_tenant(self, tenant, kind):
        """The folder of a tenant's uploads or results, made if need be."""
        folder = self.data / TENANTS / tenant
        for one in (folder, folder / kind):
            one.mkdir(exist_ok=True, mode=0o700)
        return folder / kind

    def upload(self, tenant, name):
        return self.of_tenant(tenant, UPLOADS) / name

    def result(self, tenant, name):
        return self.of_tenant(tenant, RESULTS) / name

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

    def clear_work(self):
        """Remove what attempts left that nobody makes any more."""
        for one in (self.data / WORK).iterdir():
            shutil.rmtree(one, ignore_errors=True)

    def bytes_used(self, tenant=None):
        """Bytes of the files of a tenant, or of all."""
        top = self.data / TENANTS / (tenant or "")
        total = 0
        for folder, _, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size
        return total


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
