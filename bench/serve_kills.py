"""Jobs through `sonic-ms serve` while its workers and the server itself are killed at random moments.

    python -m bench.serve_kills --jobs 200 --worker-kills 10 --server-kills 10

Fails when a job is neither completed nor failed with a reason, a video is missing, damaged or there twice, or a process
or a file is left that nothing knows. Prints one line of JSON.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE


class Server:
    """The program, started again after each kill, at the same port."""

    def __init__(self, data, port, engine):
        self.data, self.process, self.seen = data, None, set()
        self.command = [sys.executable, "-m", "sonic_ms", "serve", "--data", str(data), "--port", str(port)]
        self.command += ["--engine", engine]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if not self.process.stdout.readline():
            raise SystemExit("the server does not start")
        self.seen.add(self.process.pid)

    def workers(self):
        """Ids of the processes below the server now."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            found += map(int, task.read_text().split())
        self.seen.update(found)
        return found

    def kill(self):
        self.workers()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def submit(http, count):
    """Ids of `count` small jobs of one portrait and one recording."""
    ids = {}
    for kind, path in (("image", DEMO_IMAGE), ("audio", DEMO_AUDIO)):
        ids[kind] = http.post("/v1/uploads", files={"file": path.open("rb")}, data={"kind": kind}).json()["id"]
    fields = {"input_reference": ids["image"], "audio_reference": ids["audio"], "min_resolution": 64, "duration": 0.5}
    return [http.post("/v1/videos", json={**fields, "seed": seed}).json()["id"] for seed in range(count)]


def unfinished(http):
    text = http.get("/metrics").text
    return sum(float(line.split()[1]) for line in text.splitlines()
               if line.startswith(("sonic_ms_queue_depth ", "sonic_ms_jobs_running ")))  # fmt: skip


def check(server, names):
    """What is wrong, as texts; and how many are in which state."""
    wrong, states, files = [], {}, set()
    for name in names:
        video = server.http.get(f"/v1/videos/{name}").json()
        states[video.get("state")] = states.get(video.get("state"), 0) + 1
        if video.get("state") == "completed":
            content = server.http.get(f"/v1/videos/{name}/content").content
            if hashlib.sha256(content).hexdigest() != video["sha256"]:
                wrong.append(f"{name}: its bytes are not those that were written")
        elif video.get("state") != "failed" or not video["error"]["message"]:
            wrong.append(f"{name}: {video.get('state')}")
    listed = [one["id"] for one in pages(server.http)]
    if sorted(listed) != sorted(names):
        wrong.append(f"{len(listed)} jobs are listed, {len(names)} were made")
    database = sqlite3.connect(server.data / "jobs.sqlite3")
    for (result,) in database.execute("SELECT result FROM jobs WHERE result IS NOT NULL"):
        files.add(json.loads(result)["file"])
    files |= {name for (name,) in database.execute("SELECT id FROM uploads")}
    database.close()
    there = {path.name for path in server.data.glob("tenants/*/*/*")}
    if there != files:
        wrong.append(f"files without a row: {there - files}; rows without a file: {files - there}")
    if left := list((server.data / "work").iterdir()):
        wrong.append(f"left in work: {left}")
    return wrong, states


def pages(http):
    after = None
    while True:
        page = http.get("/v1/videos", params={"limit": 100, **({"after": after} if after else {})}).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["last_id"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--server-kills", type=int, default=10)
    parser.add_argument("--pause", type=float, default=8.0, help="longest pause between two kills, in seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--engine", default="onnxruntime")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    kills = ["worker"] * args.worker_kills + ["server"] * args.server_kills
    chance.shuffle(kills)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder, "data"), args.port, args.engine)
        server.start()
        started = time.monotonic()
        names = submit(server.http, args.jobs)
        for kind in kills:
            time.sleep(chance.uniform(0, args.pause))
            if kind == "server":
                server.kill()
                server.start()
            else:
                for pid in server.workers():
                    os.kill(pid, signal.SIGKILL)
        while unfinished(server.http):
            server.workers()
            time.sleep(0.5)
        seconds = time.monotonic() - started
        wrong, states = check(server, names)
        server.workers()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        time.sleep(1)
        if left := [pid for pid in server.seen if alive(pid)]:
            wrong.append(f"processes that are left: {left}")
    print(json.dumps({"jobs": args.jobs, "worker_kills": args.worker_kills, "server_kills": args.server_kills,
                      "states": states, "seconds": round(seconds, 1), "wrong": wrong}))  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
