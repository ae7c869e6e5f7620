"""Short jobs an hour: single commands, one warm worker without overlap, and with it, taking turns in one run.

    python -m bench.serve_throughput --jobs 20 --rounds 2 --lanes 1,2,3

A job is the package's portrait and speech, SECONDS long, at --size pixels. The worker is warm: its model is loaded and
one video made before the clock starts. Prints a table.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.serve.database import Database
from sonic_ms.serve.files import Folders, LocalFiles, upload_key
from sonic_ms.serve.jobs import Jobs
from sonic_ms.serve.settings import Settings
from sonic_ms.serve.slots import Slots


class Warm:
    """A slot with a worker that has made a video."""

    def __init__(self, folder, lanes, options):
        self.folders, self.options = Folders(folder), options
        self.database = Database(folder)
        self.jobs, files = Jobs(self.database), LocalFiles(folder)
        for name, path in (("image", DEMO_IMAGE), ("audio", DEMO_AUDIO)):
            files.path(upload_key("t", name)).symlink_to(path)
        settings = Settings(data=folder, engine="onnxruntime", lanes=lanes)
        self.slots = Slots(settings, self.jobs, self.folders, files)
        self.slots.start()
        self.make(1)

    def make(self, count):
        """Seconds that `count` jobs take."""
        started = time.monotonic()
        names = [self.jobs.add("t", "sonic-edge", {**self.options, "seed": seed}, "image", "audio",
                               {"names": ["image", "audio"]}).id for seed in range(count)]  # fmt: skip
        while names:
            job = self.jobs.get("t", names[0])
            if job.ended:
                assert job.state == "completed", job.error
                names.pop(0)
            else:
                time.sleep(0.01)
        return time.monotonic() - started

    def stop(self):
        self.slots.stop()
        self.database.close()


def commands(count, options):
    """Seconds that `count` commands take, one after the other."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(count):
            words = [f"--{name.replace('_', '-')}={value}" for name, value in {**options, "seed": seed}.items()]
            subprocess.run(
                [sys.executable, "-m", "sonic_ms", "generate", "--image", DEMO_IMAGE, "--audio", DEMO_AUDIO, "--output",
                 f"{folder}/{seed}.mp4", "--engine", "onnxruntime", *words],
                check=True, capture_output=True,
            )  # fmt: skip
    return time.monotonic() - started


def note(times, name, seconds):
    times.setdefault(name, []).append(seconds)
    print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--lanes", default="1,2,3")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--no-commands", action="store_true", help="leave the single commands out")
    args = parser.parse_args()
    options = {"min_resolution": args.size, "duration": args.seconds, "visible_label": "en"}
    lanes = [int(one) for one in args.lanes.split(",")]
    times = {}
    for _ in range(args.rounds):
        for count in lanes:
            with tempfile.TemporaryDirectory() as folder:
                warm = Warm(Path(folder), count, options)
                note(times, f"warm worker, lanes {count}", warm.make(args.jobs))
                warm.stop()
        if not args.no_commands:
            note(times, "single commands", commands(args.jobs, options))
    base = min(times[f"warm worker, lanes {lanes[0]}"])
    print(f"{args.jobs} jobs of {args.seconds:g} s at {args.size} pixels, best of {args.rounds}, "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"| how | jobs an hour | against lanes {lanes[0]} |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {3600 * args.jobs / min(seconds):.0f} | {base / min(seconds):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
