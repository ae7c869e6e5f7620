"""Workers in a real Ray cluster on this machine: nodes killed in mid-job, two workers against one, Ray's cost a job.

    python -m bench.ray_workers kills --times 10
    python -m bench.ray_workers throughput --jobs 8 --rounds 2
    python -m bench.ray_workers overhead --jobs 50

kills: a job of 2 s of speech runs on a node with one processor when the node is killed; another one is there.
Fails when a job is not completed once, or a process of a lost or ended actor is left. throughput: actors of one thread
each, warm. overhead: the tests' worker that makes nothing at once, as an actor and as a process here, taking turns.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.serve import actors, process
from sonic_ms.serve.database import Database
from sonic_ms.serve.files import Folders, LocalFiles, upload_key
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.settings import Settings
from sonic_ms.serve.slots import Slots
from tests.support.fake_remote import FAKE, FakeRemote
from tests.support.ray_cluster import add_node, cluster, node_of

OPTIONS = {"min_resolution": 128, "duration": 2.0}


class Queue:
    """The queue of a server without HTTP, whose workers are ready."""

    def __init__(self, folder, **settings):
        self.files, self.database = LocalFiles(folder), Database(folder)
        self.jobs, self.pids, self.count = Jobs(self.database), set(), 0
        for name, path in (("image", DEMO_IMAGE), ("audio", DEMO_AUDIO)):
            self.files.path(upload_key("t", name)).symlink_to(path)
        settings = Settings(data=folder, engine="onnxruntime", lanes=1, **settings)
        self.slots = Slots(settings, self.jobs, Folders(folder), self.files)
        self.slots.start()
        self.until_ready()

    def until_ready(self):
        while self.slots.ready < len(self.slots.slots):
            time.sleep(0.02)

    def add(self, **options):
        self.count += 1
        options = {**OPTIONS, "seed": 1000 + self.count, **options}
        return self.jobs.add("t", "sonic-edge", options, "image", "audio", {"names": ["image", "audio"]}).id

    def wait(self, names):
        while not all((job := self.jobs.get("t", name)).ended for name in names):
            time.sleep(0.005)
        assert all(self.jobs.get("t", name).state == "completed" for name in names), job.error

    def make(self, count):
        """Seconds that `count` jobs take."""
        started = time.monotonic()
        self.wait([self.add() for _ in range(count)])
        return time.monotonic() - started

    def processes(self):
        """Ids of the actors' processes and of their workers'."""
        import ray

        hellos = [ray.get(slot.worker._actor.hello.remote()) for slot in self.slots.slots]
        found = [one[name] for one in hellos for name in ("pid", "worker")]
        self.pids |= set(found)
        return found

    def stop(self):
        self.slots.stop()
        self.database.close()


@contextlib.contextmanager
def queue_of(**settings):
    with tempfile.TemporaryDirectory() as folder:
        made = Queue(Path(folder), **settings)
        try:
            yield made
        finally:
            made.stop()


@contextlib.contextmanager
def nodes(count):
    """A cluster of so many nodes with one processor each."""
    import ray

    with cluster() as made:
        made.chips = [add_node(made) for _ in range(count)]
        actors.connect(made.address)
        yield made
        ray.shutdown()


def kills(args):
    waits, once, pids = [], 0, set()
    with nodes(2) as made, queue_of(workers="ray") as jobs:
        for number in range(args.times):
            pids |= set(jobs.processes())
            name = jobs.add()
            while not jobs.jobs.get("t", name).frames_done:
                time.sleep(0.005)
            lost = node_of(made, jobs.processes()[0])
            made.remove_node(lost, allow_graceful=False)
            made.chips.remove(lost)
            killed = time.monotonic()
            jobs.wait([name])
            waits.append(time.monotonic() - killed)
            events = [event for _, event, _ in jobs.jobs.events(name)]
            once += events.count("completed") == 1
            print(f"kill {number}: the video {waits[-1]:.1f} s later", file=sys.stderr)
            made.chips.append(add_node(made))
        pids |= set(jobs.processes())
    time.sleep(2)
    left = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    print(f"{args.times} nodes killed in mid-job: {once} completed once, {len(left)} processes left; the video "
          f"{min(waits):.1f} to {max(waits):.1f} s after the kill")  # fmt: skip
    return 0 if once == args.times and not left else 1


def throughput(args):
    times = {1: [], 2: []}
    with nodes(2):
        for _ in range(args.rounds):
            for count, found in times.items():
                with queue_of(workers="ray", slots=count) as jobs:
                    jobs.make(2 * count)
                    found.append(jobs.make(args.jobs))
                    print(f"{count} workers: {found[-1]:.1f} s", file=sys.stderr)
    one, two = (min(found) for found in times.values())
    print(f"{args.jobs} jobs of 2 s at 128 pixels: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times")
    return 0


def overhead(args):
    process.WORKER, actors.Remote = FAKE, FakeRemote
    times = {"ray": [], "processes": []}
    with nodes(1), contextlib.ExitStack() as stack:
        queues = {kind: stack.enter_context(queue_of(workers=kind)) for kind in times}
        for _ in range(args.jobs):
            for kind, found in times.items():
                found.append(queues[kind].make(1))
    ray, local = (statistics.median(found) for found in times.values())
    print(f"{args.jobs} jobs that make nothing: {1000 * local:.0f} ms each in a process, {1000 * ray:.0f} ms in an "
          f"actor; {1000 * (ray - local):.0f} ms of Ray")  # fmt: skip
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "throughput", "overhead"))
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    code = {"kills": kills, "throughput": throughput, "overhead": overhead}[args.what](args)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    return code


if __name__ == "__main__":
    sys.exit(main())
