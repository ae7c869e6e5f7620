"""10 and 1,000 boxes on paper: jobs of a day through one queue in one database, on measured service times.

    python -m bench.cluster_simulation
    python -m bench.cluster_simulation --boxes 1000 --jobs 3000000 --flush-ms 5

Discrete events: jobs come at random, more by day than by night (1.8 times the mean at the peak); speech is exponential,
20 s on average, 2 s at least and 600 s at most. A job is written (1), claimed (2) and ended (3) in transactions that
only one server at a time can be in: each takes its statements' round trips and one flush of the log, and waits for
those before it. A free box takes the job that waits longest.

Measured (docs/measured/cluster.md, speed.md): statements and bytes of a job, seconds of work a second of speech, bytes
of a video. Assumed, because they are your network's and disk's: --round-trip-ms, --flush-ms, --delete-ms. Prints one
line of JSON a row: at how many jobs a day each resource is full, the first one being the bottleneck; then waits, depth,
writes and bytes a second.
"""

import argparse
import heapq
import json
import math
import random
from dataclasses import dataclass

DAY = 86400.0
PEAK = 0.8  # of the mean, above it at noon


@dataclass(frozen=True)
class Costs:
    """Of one job, from bench/cluster_cost.py, and of sonic-edge at 512 pixels on a box of two cores (speed.md)."""

    start_seconds: float = 1.5  # to the first frame; of a cold start, a warm worker needs less
    seconds_a_second: float = 0.32  # of work, a second of speech
    statements: tuple[int, ...] = (9, 9, 9)  # of the transactions alone: written, claimed, ended
    beside: float = 4.3  # other transactions of a job: uploads, renewals, webhook
    forget: int = 3  # transactions alone of the janitor: two inputs and the video go
    forget_statements: int = 6
    processor_ms: float = 33.2 + 8.7  # of the database, a job without its progress
    progress_processor_ms: float = 1.2
    log_bytes: int = 10_100 + 2_230  # written to the database's log for a job
    disk_bytes: int = 7_900  # that a job's rows take while they are kept
    progress_every: float = 0.4  # seconds between two reports of a running job
    progress_log_bytes: int = 510
    renewal_every: float = 5.0  # seconds, of a box that works
    photo_bytes: int = 100_000
    speech_bytes: int = 32_000  # a second
    video_bytes: int = 110_000  # a second


def speech(chance):
    return min(600.0, max(2.0, chance.expovariate(1 / 20)))


def arrivals(jobs, chance):
    """Seconds of the day at which jobs come."""
    highest = jobs / DAY * (1 + PEAK)
    now = 0.0
    while (now := now + chance.expovariate(highest)) < DAY:
        if chance.random() * (1 + PEAK) < 1 - PEAK * math.cos(2 * math.pi * now / DAY):
            yield now


def simulate(boxes, jobs, costs, trip, flush, seed=0):
    """A day: {name: figure}. trip, flush: seconds."""
    chance = random.Random(seed)
    hold = [statements * trip + flush for statements in costs.statements]
    free, lock_free, running, waiting = boxes, 0.0, [], []
    head, depth, busy, locked, spoken = 0, 0, 0.0, 0.0, 0.0
    waits, lock_waits = [], []

    def alone(kind, now):
        """When a transaction that is wanted now has ended."""
        nonlocal lock_free, locked
        begin = max(now, lock_free)
        lock_waits.append(begin - now)
        lock_free = begin + hold[kind]
        locked += hold[kind]
        return lock_free

    def start(now):
        nonlocal head, free, busy
        there, seconds = waiting[head]
        head += 1
        free -= 1
        begun = alone(1, now)
        waits.append(begun - there)
        work = costs.start_seconds + costs.seconds_a_second * seconds
        busy += work
        heapq.heappush(running, begun + work)

    coming = arrivals(jobs, chance)
    following = next(coming, None)
    last = 0.0
    while following is not None or running:
        if running and (following is None or running[0] <= following):
            now = heapq.heappop(running)
            last = alone(2, now)
            free += 1
        else:
            now, seconds = following, speech(chance)
            spoken += seconds
            alone(0, now)
            waiting.append((now, seconds))
            following = next(coming, None)
        while free and head < len(waiting):
            start(now)
        depth = max(depth, len(waiting) - head)
    return figures(boxes, waits, lock_waits, depth, busy, locked, spoken, last, costs)


def figures(boxes, waits, lock_waits, depth, busy, locked, spoken, last, costs):
    waits.sort()
    lock_waits.sort()
    count, seconds = len(waits), max(DAY, last)
    progress = busy / costs.progress_every
    renewals = busy / costs.renewal_every
    log = count * costs.log_bytes + progress * costs.progress_log_bytes
    processor = count * costs.processor_ms + progress * costs.progress_processor_ms
    files = count * costs.photo_bytes + spoken * (costs.speech_bytes + costs.video_bytes)
    alone = count * (len(costs.statements) + costs.forget)
    return {
        "jobs": count,
        "wait_s": {name: round(waits[int(part * (count - 1))], 2)
                   for name, part in (("half", 0.5), ("95 %", 0.95), ("longest", 1))},
        "deepest queue": depth,
        "done after h": round(last / 3600, 1),
        "boxes used": round(busy / boxes / seconds, 3),
        "lock used": round(locked / seconds, 3),
        "lock wait 99 % ms": round(1000 * lock_waits[int(0.99 * (len(lock_waits) - 1))], 1),
        "writes_a_second": {"alone": round(alone / seconds, 1), "beside": round(count * costs.beside / seconds, 1),
                            "progress": round(progress / seconds, 1), "renewals": round(renewals / seconds, 1)},
        "database processors": round(processor / 1000 / seconds, 2),
        "log_bytes_a_second": round(log / seconds),
        "file_bytes_a_second": round(files / seconds),
        "rows after 37 days GB": round(37 * count * costs.disk_bytes / 1e9, 1),
    }  # fmt: skip


def full_at(boxes, costs, trip, flush, delete):
    """Jobs a day at which each resource is full, the first one first."""
    work = costs.start_seconds + costs.seconds_a_second * 20.0
    hold = sum(costs.statements) * trip + len(costs.statements) * flush
    forget = costs.forget * (costs.forget_statements * trip + flush)
    found = {
        "boxes": boxes / work,
        "the database's one writer": 1 / (hold + forget),
        "the one janitor": 1 / (forget + costs.forget * delete),
    }
    return {name: round(DAY * found[name]) for name in sorted(found, key=found.get)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--boxes", type=int, nargs="+", default=[10, 1000])
    add("--jobs", type=int, nargs="+", default=[100_000, 1_000_000], help="a day")
    add("--round-trip-ms", type=float, default=0.3, help="to the database, a statement (default: 0.3)")
    add("--flush-ms", type=float, default=2.0, help="of its log to the disk (default: 2)")
    add("--delete-ms", type=float, default=15.0, help="of a file in the bucket (default: 15)")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    trip, flush, delete = args.round_trip_ms / 1000, args.flush_ms / 1000, args.delete_ms / 1000
    for boxes in args.boxes:
        print(json.dumps({"boxes": boxes, "full at jobs a day": full_at(boxes, Costs(), trip, flush, delete)}))
        for jobs in args.jobs:
            print(json.dumps({"boxes": boxes, **simulate(boxes, jobs, Costs(), trip, flush, args.seed)}), flush=True)


if __name__ == "__main__":
    main()
