"""`sonic-ms serve` on a free port with the worker that pretends: for tests and benches that kill a server."""

import sys
from pathlib import Path

from sonic_ms.cli import main
from sonic_ms.serve import process

process.WORKER = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))

if __name__ == "__main__":
    sys.exit(main(["serve", "--port", "0", *sys.argv[1:]]))
