"""serve/remote.py with the worker that only pretends, for actors in the tests' Ray cluster."""

import sys
from pathlib import Path

from sonic_ms.serve import process
from sonic_ms.serve.remote import Remote

FAKE = (sys.executable, str(Path(__file__).resolve().parent.parent / "serve" / "fake_worker.py"))


class FakeRemote(Remote):
    def __init__(self, *arguments):
        process.WORKER = FAKE
        super().__init__(*arguments)
