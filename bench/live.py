"""What live sessions of sonic-edge cost and give: python -m bench.live WHAT [--recordings DIR] [--minutes N]

  curves     correlation of the mouth's opening with that of an offline video, by look-ahead, for every recording
  latency    from the last sample of a frame pushed to its picture out, at 512 and 256 pixels, in real time
  hour       speech without end on a clock that does not wait: drift, memory, dropped pictures (--minutes, default 60)
  sessions   pictures in time with 1, 2, 3 and 4 sessions at once at 256 pixels, in real time

The recordings are the package's speech and those of Debian's pocketsphinx-testdata. Beside every time stands the CPU
time, which other programs on the machine change less.
"""

import argparse
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.live import LiveEdge, LiveUnits
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.units import LIVE_WINDOW
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, load_audio
from sonic_ms.pipeline import load_model

POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
LOOK_AHEADS = (0, 0.1, 0.2, 0.4)  # seconds
CHUNK = 320  # samples a push, 20 ms


def recordings(folder):
    """{name: samples}: the package's speech, and .raw and .wav of Debian's recordings."""
    found = {"speech.wav": load_audio(DEMO_AUDIO)}
    for path in (*sorted(folder.glob("*.raw")), *sorted(folder.glob("librivox/*.wav"))):
        raw = path.suffix == ".raw"
        found[path.name] = np.fromfile(path, "<i2") / np.float32(32768) if raw else load_audio(path)
    return found


def live_curves(generator, samples, ahead, options):
    """(n, 8) as a session shows them that sees `ahead` frames."""
    units = LiveUnits("edge_live_audio", LIVE_WINDOW, "", 1)
    speaker = LiveEdge(generator.engine, generator.heard, units, None, options)
    count = round(len(samples) / SAMPLES_PER_FRAME)
    padded = np.pad(samples, (0, max(0, (count + ahead) * SAMPLES_PER_FRAME - len(samples))))
    frames = padded[: (count + ahead) * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    for frame in frames[:ahead]:
        speaker.append(frame)
    shown = []
    for frame in frames[ahead:]:
        speaker.append(frame)
        shown.append(speaker.next_curves())
    return np.array(shown)


def correlations(generator, sounds, look_ahead):
    """{name: correlation of the opening with the offline one}."""
    options, found = EdgeOptions(), {}
    for name, samples in sounds.items():
        offline, _ = generator.curves(samples, options)
        live = live_curves(generator, samples, round(25 * look_ahead), options)
        count = min(len(offline), len(live))
        found[name] = float(np.corrcoef(offline[:count, OPEN], live[:count, OPEN])[0, 1])
    return found


def curves(model, arguments):
    sounds = recordings(arguments.recordings)
    print(f"| look-ahead | mean | {' | '.join(sounds)} |\n|{'---|' * (len(sounds) + 2)}")
    for look_ahead in LOOK_AHEADS:
        found = list(correlations(model.generator, sounds, look_ahead).values())
        values = " | ".join(f"{value:.3f}" for value in found)
        print(f"| {1000 * look_ahead:.0f} ms | {np.mean(found):.3f} | {values} |", flush=True)


class Microphone(threading.Thread):
    """Pushes samples again and again at the speed of speech."""

    def __init__(self, session, samples):
        super().__init__(daemon=True)
        self.session, self.samples, self.quiet = session, samples, threading.Event()

    def run(self):
        started, sent = time.monotonic(), 0
        while not self.quiet.is_set():
            first = sent % (len(self.samples) - CHUNK)
            self.session.push(self.samples[first : first + CHUNK])
            sent += CHUNK
            time.sleep(max(0, started + sent / SAMPLE_RATE - time.monotonic()))


def in_real_time(model, side, seconds, samples):
    """(delays in seconds of the pictures that came, pictures that did not, frames, CPU seconds of this thread)."""
    delays, missing, frames = [], 0, round(25 * seconds)
    with model.live(str(DEMO_IMAGE), microphone=True, min_resolution=side) as session:
        microphone = Microphone(session, samples)
        microphone.start()
        started = time.thread_time()
        for _ in range(frames):
            frame = session.pull()
            missing += frame.image is None
            if frame.image is not None and frame.delay is not None:
                delays.append(frame.delay)
        used = time.thread_time() - started
        microphone.quiet.set()
        microphone.join()
    return delays, missing, frames, used


def latency(model, arguments):
    samples = load_audio(DEMO_AUDIO)
    print("| short side | median | p99 | pictures dropped | CPU a frame |\n|---|---|---|---|---|")
    for side in (512, 256):
        delays, missing, frames, used = in_real_time(model, side, 30, samples)
        low, high = 1000 * np.percentile(delays, [50, 99])
        print(
            f"| {side} | {low:.0f} ms | {high:.0f} ms | {missing / frames:.1%} | {1000 * used / frames:.0f} ms |",
            flush=True,
        )


def sessions(model, arguments):
    samples = load_audio(DEMO_AUDIO)
    print("| sessions | pictures dropped | median delay | CPU a frame |\n|---|---|---|---|")
    for count in (1, 2, 3, 4):
        with ThreadPoolExecutor(count) as pool:
            found = list(pool.map(lambda _: in_real_time(model, 256, 12, samples), range(count)))
        delays = np.concatenate([one[0] for one in found])
        missing, frames, used = (sum(one[i] for one in found) for i in (1, 2, 3))
        print(
            f"| {count} | {missing / frames:.1%} | {1000 * np.median(delays):.0f} ms | {1000 * used / frames:.0f} ms |",
            flush=True,
        )


class PatientClock:
    """Time passes only while somebody waits for it."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


def hour(model, arguments):
    samples, clock = load_audio(DEMO_AUDIO), PatientClock()
    page = resource.getpagesize()

    def memory():
        return int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6

    with model.live(str(DEMO_IMAGE), clock=clock, min_resolution=256) as session:
        spoken, sent, drift = 0, 0, 0
        print("| minutes | drift, frames | memory | pictures dropped | CPU a frame |\n|---|---|---|---|---|")
        for minute in range(arguments.minutes + 1):
            if minute:
                started = time.process_time()
                for _ in range(60 * 25):
                    while sent / SAMPLE_RATE <= clock.now() + 1:
                        first = sent % (len(samples) - SAMPLES_PER_FRAME)
                        session.push(samples[first : first + SAMPLES_PER_FRAME])
                        sent += SAMPLES_PER_FRAME
                    frame = session.pull()
                    if frame.position is not None:
                        drift = max(drift, abs(25 * frame.position - spoken), abs(frame.index - spoken))
                        spoken += 1
                used = (time.process_time() - started) / 1500
            if minute and (minute in (1, 2) or minute % 10 == 0 or minute == arguments.minutes):
                print(
                    f"| {minute} | {drift:.2f} | {memory():.0f} MB | {session.dropped} | {1000 * used:.0f} ms |",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "latency", "hour", "sessions"))
    parser.add_argument("--recordings", type=Path, default=POCKETSPHINX)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    model = load_model(engine=arguments.engine)
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {model.generator.engine.info()}\n")
    globals()[arguments.what](model, arguments)


if __name__ == "__main__":
    main()
