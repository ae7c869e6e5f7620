"""Memory, open files and files on disk of `sonic-ms serve` over many jobs.

    python -m bench.serve_memory --jobs 500

Small jobs one after the other through the real program; the first tenth warms it up, after it and at the end server and
worker are looked at. Fails when the resident memory of either grew by more than 5 %, one holds more open files, or
something is left in the work folder. Prints one line of JSON.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.serve_kills import Server, check, submit, unfinished

MOST_GROWTH = 1.05


def look(pid):
    """(resident MB, open files) of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident / 1e3, len(os.listdir(f"/proc/{pid}/fd"))


def wait(server):
    while unfinished(server.http):
        time.sleep(0.5)
    time.sleep(2)  # what ends with a job has ended
    worker = max(server.workers(), key=lambda pid: look(pid)[0])
    return {"server": look(server.process.pid), "worker": look(worker)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--port", type=int, default=8765)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder, "data"), args.port, "onnxruntime")
        server.start()
        names = submit(server.http, args.jobs // 10)
        before = wait(server)
        names += submit(server.http, args.jobs - len(names))
        after = wait(server)
        wrong, states = check(server, names)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
    for name, (memory, files) in after.items():
        if memory > MOST_GROWTH * before[name][0]:
            wrong.append(f"{name}: {before[name][0]:.0f} -> {memory:.0f} MB")
        if files > before[name][1]:
            wrong.append(f"{name}: {before[name][1]} -> {files} open files")
    print(json.dumps({"jobs": args.jobs, "states": states, "MB and files before": before, "after": after,
                      "wrong": wrong}))  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
