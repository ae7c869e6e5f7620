"""The files of a job on their way between the store and the work of an attempt.

In threads: a store that does not answer holds up neither leases nor other jobs. What it refuses is tried again until it
is done or called off; a video lies in the work folder until then.
"""

import itertools
import logging
import os
import threading

from sonic_ms.files.digest import sha256_of
from sonic_ms.serve.files import result_key, upload_key
from sonic_ms.serve.problems import Unavailable

log = logging.getLogger("sonic_ms.serve")

VIDEO = "video.mp4"
PAUSES = (0.5, 1.0, 2.0, 4.0, 5.0)  # seconds between two attempts, the last one for ever


def fetch_inputs(files, job, folder):
    """(photo, recording) of a job as paths on this machine, in place or copied into `folder`. Raises FileNotFoundError,
    Unavailable."""
    return tuple(str(files.fetch(upload_key(job.tenant, name), folder)) for name in (job.image, job.audio))


def store_result(files, job, made):
    """Put the video `made` into the store; the members `file`, `bytes`, `sha256` of the job's result. Unavailable."""
    name = f"{job.id}-{job.attempt}.mp4"
    digest, size = sha256_of(made), os.path.getsize(made)
    files.take(result_key(job.tenant, name), made)
    return {"file": name, "bytes": size, "sha256": digest}


class Move:
    """work() in a thread, until it gives something or is called off. Then `inbox` gets (this, what it gave), or
    (this, {"is": "failed", ...}) as worker.py would say it."""

    def __init__(self, job, work, inbox):
        self.job = job
        self._work, self._inbox, self._off = work, inbox, threading.Event()
        threading.Thread(target=self._run, daemon=True, name=f"files-of-{job.id}").start()

    def call_off(self):
        self._off.set()

    def _run(self):
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            try:
                given = self._work()
            except Unavailable as error:
                log.warning("files of %s: %s", self.job.id, error)
                if self._off.wait(pause):
                    return
            except FileNotFoundError:
                return self._tell(_failed("input_gone", 410, "a file of the job was removed before it began", False))
            except OSError as error:
                log.exception("files of %s", self.job.id)
                return self._tell(_failed("output_error", 507, f"a file cannot be kept ({error.strerror})", True))
            except Exception:
                log.exception("files of %s", self.job.id)
                return self._tell(_failed("internal_error", 500, "its files could not be moved", True))
            else:
                return self._tell(given)

    def _tell(self, given):
        self._inbox.put((self, given))


def _failed(code, status, message, again):
    return {"is": "failed", "code": code, "status": status, "message": message, "again": again}
