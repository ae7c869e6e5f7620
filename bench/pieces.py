"""One video over 1, 2 and 4 single-threaded processes, taking turns in one run, and whether its frames are the same.

    python -m bench.pieces --seconds 24 --size 256 --pieces 1,2,4 --rounds 2 [--pin]

A process of one thread still keeps an encoder and its own Python busy beside its graphs: 1.6 cores. --pin gives each
process, with what it starts, one core in turn, as if every worker were a machine of one core.
The speech is the package's, repeated. "work" is from the moment that every process has its model to the finished mp4,
"whole" from the start of the processes. Fails when a frame of a piece differs from that of the whole. Prints a table.
"""

import argparse
import hashlib
import itertools
import os
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

import sonic_ms
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.labels.save import piece_of
from sonic_ms.media.audio import load_audio
from sonic_ms.serve import pieces, process
from sonic_ms.serve.settings import Settings

FRAMES = {True: "equal", False: "DIFFER", None: "not compared"}


class PinnedWorker(process.Worker):
    """A worker on one core, with all that it starts: the cores take turns."""

    started = itertools.count()

    def __init__(self, *arguments):
        super().__init__(*arguments)
        cores = sorted(os.sched_getaffinity(0))
        # at once: the threads that it starts later have the core of its first one
        os.sched_setaffinity(self.process.pid, {cores[next(self.started) % len(cores)]})


def speech(path, seconds):
    """The package's speech, as often as it takes."""
    samples = np.resize(load_audio(DEMO_AUDIO), round(seconds * 16000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def digest(frames):
    total = hashlib.sha256()
    for frame in frames:
        total.update(frame.tobytes())
    return total.hexdigest()


def same_frames(audio, options, counts):
    """Whether the frames of all pieces, one after the other, are those of the whole."""
    video = sonic_ms.load_model(engine="onnxruntime").generate(str(DEMO_IMAGE), str(audio), **options)
    whole = digest(video)
    return all(
        whole == digest(frame for number in range(count) for frame in video.piece(*piece_of(len(video), number, count)))
        for count in counts
    )


def make(count, audio, folder, options):
    """(seconds of work, seconds in all) of a video in so many pieces."""
    begun = []

    def report(stage, done, total):
        begun.append(time.perf_counter())

    started = time.perf_counter()
    settings = Settings(data=folder, engine="onnxruntime")
    pieces.make_in_pieces(settings, count, DEMO_IMAGE, audio, folder / "made.mp4", options, report)
    return time.perf_counter() - begun[0], time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--pieces", default="1,2,4")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pin", action="store_true", help="one core for each process")
    parser.add_argument("--no-frames", action="store_true", help="leave the comparison of the frames out")
    args = parser.parse_args()
    counts = [int(one) for one in args.pieces.split(",")]
    if args.pin:
        pieces.Worker = PinnedWorker
    options = {"min_resolution": args.size}
    times = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio = speech(folder / "speech.wav", args.seconds)
        same = None if args.no_frames else same_frames(audio, options, [count for count in counts if count > 1])
        for _ in range(args.rounds):
            for count in counts:
                times[count].append(make(count, audio, folder, options))
                print(f"{count} pieces: {times[count][-1][0]:.1f} s", file=sys.stderr, flush=True)
    print(f"{args.seconds:g} s of speech at {args.size} pixels, best of {args.rounds}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}; frames {FRAMES[same]}")  # fmt: skip
    unit = "core" if args.pin else "thread"
    print(f"| processes of one {unit} | work, s | whole, s | work against one |\n|---|---|---|---|")
    base = min(work for work, _ in times[counts[0]])
    for count, found in times.items():
        work, whole = (min(values) for values in zip(*found))
        print(f"| {count} | {work:.1f} | {whole:.1f} | {base / work:.2f} |")
    return 1 if same is False else 0


if __name__ == "__main__":
    sys.exit(main())
