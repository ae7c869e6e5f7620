"""Make every video of the evaluation with `sonic-ms generate`, measure it with `sonic-ms evaluate`, and sum up.

    python -m bench.make_evaluation_set --out SET
    python -m bench.run_evaluation --set SET --out OUT [--quick] [--reuse] [--contact-sheet]

OUT gets the videos, the figures of each (NAME.json) with time and memory of its making (NAME.run.json), results.json
and results.md: one table over all of them. --reuse keeps what an earlier run has finished.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import time
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

LONG_SECONDS = 62  # of the drift clip
MEMORY_SECONDS = (10, 120)
PAUSE_SECONDS = 1.5  # a mouth rests in it
DYNAMIC_SCALES = (0.5, 1.0, 1.5)
GIGABYTE = 1e9
SHEET_FRAMES = 14


@dataclass(frozen=True)
class Job:
    """One video: group says what it is for."""

    group: str
    photo: Path
    audio: Path
    phonemes: Path | None = None
    options: dict = field(default_factory=dict)

    @property
    def name(self):
        extra = "".join(f"_{key.split('-')[0]}{value:g}" for key, value in self.options.items())
        return f"{self.group}_{self.photo.stem}_{self.audio.stem}{extra}"


def list_jobs(folder, out, quick):
    """All jobs of the evaluation; writes the concatenated recordings into `out`."""
    photos = sorted((folder / "portraits").iterdir())
    recordings = sorted((folder / "recordings").glob("*.wav"))
    sentences = sorted((folder / "sentences").glob("*.wav"))
    if quick:
        recordings, sentences = recordings[:1], sentences[:2]
    jobs = []
    for photo in photos:
        jobs += [Job("speech", photo, audio) for audio in recordings]
        jobs += [Job("still", photo, audio, options={"motion-scale": 0}) for audio in recordings]
        jobs += [Job("sentence", photo, audio, audio.with_suffix(".json")) for audio in sentences]
        jobs += [Job("scale", photo, recordings[0], options={"dynamic-scale": scale}) for scale in DYNAMIC_SCALES]
    if not quick:
        long = concatenate(recordings, LONG_SECONDS, out / "long.wav")
        jobs += [Job("long", photo, long, options={"motion-scale": scale}) for photo in photos for scale in (0, 1)]
        lengths = [concatenate(recordings, seconds, out / f"{seconds}s.wav") for seconds in MEMORY_SECONDS]
        jobs += [Job("memory", photos[0], audio) for audio in lengths]
        jobs += [Job("pause", photo, with_a_pause(recordings[:2], out / "pause.wav")) for photo in photos]
    return jobs


def concatenate(recordings, seconds, path):
    """Recordings of one format after another, again and again, cut to exactly `seconds`; the path."""
    blocks = []
    for recording in recordings:
        with wave.open(str(recording)) as file:
            parameters = file.getparams()
            blocks.append(file.readframes(file.getnframes()))
    size = round(seconds * parameters.framerate) * parameters.nchannels * parameters.sampwidth
    block = b"".join(blocks)
    with wave.open(str(path), "wb") as file:
        file.setparams(parameters)
        file.writeframes((block * (size // len(block) + 1))[:size])
    return path


def with_a_pause(recordings, path):
    """Two recordings of one format with PAUSE_SECONDS of silence between; the path."""
    with wave.open(str(recordings[0])) as first, wave.open(str(recordings[1])) as second:
        quiet = bytes(round(PAUSE_SECONDS * first.getframerate()) * first.getnchannels() * first.getsampwidth())
        with wave.open(str(path), "wb") as file:
            file.setparams(first.getparams())
            file.writeframes(first.readframes(first.getnframes()) + quiet + second.readframes(second.getnframes()))
    return path


def run(arguments):
    """Run a `sonic-ms` command: (seconds, peak memory in bytes, standard error). Exits when it fails.

    The peak is the largest process of the command's tree, as the kernel counts it; this process must stay small until
    then, because a child starts with its parent's peak.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sonic_ms", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    messages = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"sonic-ms {' '.join(map(str, arguments))}\n{messages}failed with exit code {process.returncode}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024, messages


def make(job, out, reuse):
    """Generate and measure one video; its figures, and its making under "run"."""
    video, figures, made = (out / f"{job.name}{suffix}" for suffix in (".mp4", ".json", ".run.json"))
    if not (reuse and video.exists() and made.exists()):
        arguments = ["generate", "--image", job.photo, "--audio", job.audio, "--output", video]
        arguments += ["--seed", 0, "--overwrite", "-v"]
        for option, value in job.options.items():
            arguments += [f"--{option}", value]
        seconds, peak, messages = run(arguments)
        timing = re.search(r"load ([\d.]+) s, work ([\d.]+) s for ([\d.]+) s of video", messages)
        load, work, length = map(float, timing.groups())
        made.write_text(json.dumps({"wall": seconds, "load": load, "work": work, "video": length, "peak": peak}))
        figures.unlink(missing_ok=True)
    if not figures.exists():
        arguments = ["evaluate", video, "--audio", job.audio, "--source", job.photo, "--json", figures]
        run(arguments + (["--phonemes", job.phonemes] if job.phonemes else []))
    return json.loads(figures.read_text()) | {"run": json.loads(made.read_text())}


# ------------------------------------------------------------------------------------------------------- summing up


@dataclass(frozen=True)
class Row:
    """One line of the table.

    values: function from the results of one photo, [(job, figures)], to a list of numbers; shown: which of them stands
    for the photo ("min", "max", or "mean": of all); good: bar as a function of that number, None for information only.
    """

    label: str
    bar: str
    values: object
    shown: str
    good: object = None


def of(figure, *groups):
    """Values of a figure over all clips of some groups."""
    return lambda results: [
        figures[figure]["value"]
        for job, figures in results
        if job.group in groups and figures.get(figure, {}).get("value") is not None
    ]


def judged(figure, *groups):
    """The same, of the clips in which it has a verdict."""
    return lambda results: of(figure, *groups)([one for one in results if one[1][figure]["passed"] is not None])


def share_of(figure, good, *groups):
    """A pooled share: 1 or 0 for every single item of a figure over all clips of some groups."""
    return lambda results: [
        float(good(item))
        for job, figures in results
        if job.group in groups
        for item in figures.get(figure, {}).get("items") or []
    ]


def passes(figure):
    """1 or 0 for each clip: does it pass the figure's own bar."""
    return lambda results: [float(figures[figure]["passed"]) for _, figures in results]


def blink_rate(results):
    """Blinks a minute over all clips at default settings put together."""
    chosen = [figures for job, figures in results if job.group in ("speech", "sentence", "long") and not is_still(job)]
    seconds = sum(figures["run"]["video"] for figures in chosen)
    blinks = sum(figures["blinks"]["value"] / 60 * figures["run"]["video"] for figures in chosen)
    return [60 * blinks / seconds] if seconds else []


def blink_lengths(results):
    """Seconds of every blink at default settings."""
    return [
        length
        for job, figures in results
        if job.group in ("speech", "sentence", "long") and not is_still(job)
        for length in figures["blink_lengths"]["items"]
    ]


def told_lags(results):
    """Lags of the clips whose loudness tells one."""
    figures = [figures["envelope_lag"] for job, figures in results if job.group in ("speech", "sentence")]
    return [one["value"] for one in figures if one["passed"] is not None]


def is_still(job):
    return job.options.get("motion-scale") == 0


def scale_steps(results):
    """Ratios of the mean opening from each dynamic_scale to the next."""
    chosen = [(job.options["dynamic-scale"], figures) for job, figures in results if job.group == "scale"]
    means = [figures["opening_mean"]["value"] for _, figures in sorted(chosen, key=lambda pair: pair[0])]
    return [wider / max(mean, 1e-6) for mean, wider in itertools.pairwise(means)]


def long_drift(figure, still):
    return lambda results: [
        figures[figure]["value"] for job, figures in results if job.group == "long" and is_still(job) == still
    ]


def made(key):
    return lambda results: [figures["run"][key] for _, figures in results]


def work_per_second(results):
    """Only clips of 5 s and more: the first frames of a process also pay for building the graph."""
    return [f["run"]["work"] / f["run"]["video"] for _, f in results if f["run"]["video"] >= 5]


def memory(results):
    return [figures["run"]["peak"] / GIGABYTE for job, figures in results if job.group == "memory"]


def memory_growth(results):
    peaks = memory(results)
    return [peaks[1] / peaks[0] - 1] if len(peaks) == 2 else []


def most(limit):
    return lambda value: value <= limit


def least(limit):
    return lambda value: value >= limit


ROWS = (
    Row("clips with exactly round(25 s) frames", "all", passes("frames"), "mean", least(1)),
    Row("clips with the sound's length within one AAC frame", "all", passes("audio_length"), "mean", least(1)),
    Row("mouth against loudness, r, recordings, mean", "", of("envelope_r", "speech"), "mean"),
    Row("mouth against loudness, r, sentences, mean", "", of("envelope_r", "sentence"), "mean"),
    Row("lag where loudness tells, frames, earliest", ">= -1", told_lags, "min", least(-1)),
    Row("lag where loudness tells, frames, latest", "<= 1", told_lags, "max", most(1)),
    Row("p, b, m at most 35 % open", ">= 0.85", share_of("bilabials", most(0.35), "sentence"), "mean", least(0.85)),
    Row("open vowels half open", ">= 0.85", share_of("open_vowels", least(0.5), "sentence"), "mean", least(0.85)),
    Row(
        "pause of 1.5 s, opening, where the photo's lips are closed",
        "<= 0.15",
        judged("pauses", "pause"),
        "max",
        most(0.15),
    ),
    Row("pause of 1.5 s, opening", "", of("pauses", "pause"), "max"),
    Row("outside the lower face, SSIM, worst frame", ">= 0.98", of("ssim_min", "still"), "min", least(0.98)),
    Row("eyes, brows, nose, SSIM, worst frame", "", of("ssim_upper_face", "still"), "min"),
    Row("paste border against 20 px further in, still", "<= 1.2", of("seam", "still"), "max", most(1.2)),
    Row("paste border against 20 px further in, default", "<= 1.2", of("seam", "speech", "sentence"), "max", most(1.2)),
    Row("sharpness of the mouth", ">= 0.7", of("mouth_sharpness", "speech", "sentence"), "min", least(0.7)),
    Row("sharpness at 60 s, still", ">= 0.97", long_drift("drift_sharpness", True), "min", least(0.97)),
    Row("sharpness at 60 s, default", "", long_drift("drift_sharpness", False), "min"),
    Row("colour at 60 s, delta E, still", "<= 1", long_drift("drift_colour", True), "max", most(1)),
    Row("colour at 60 s, delta E, default", "<= 1", long_drift("drift_colour", False), "max", most(1)),
    Row("jitter of the eye corners, px", "<= 0.5", of("jitter", "still"), "max", most(0.5)),
    Row("blinks a minute", "10 to 25", blink_rate, "mean", lambda rate: 10 <= rate <= 25),
    Row("shortest blink, s", ">= 0.1", blink_lengths, "min", least(0.1)),
    Row("longest blink, s", "<= 0.4", blink_lengths, "max", most(0.4)),
    Row("opening from one dynamic_scale to the next", ">= 1.2", scale_steps, "min", least(1.2)),
    Row("work per second of video, s", "<= 1.0", work_per_second, "max", most(1.0)),
    Row("load, s", "<= 15", made("load"), "max", most(15)),
    Row("peak memory, GB", "<= 2.5", memory, "max", most(2.5)),
    Row("memory of 120 s over 10 s", "<= 0.1", memory_growth, "max", most(0.1)),
)


def summarise(results, help_seconds):
    """Rows of the table: list of {"label", "bar", "photos": {name: number or None}, "worst", "passed"}."""
    photos = sorted({job.photo.stem for job, _ in results})
    table = []
    for row in ROWS:
        shown = {}
        for photo in photos:
            values = row.values([(job, figures) for job, figures in results if job.photo.stem == photo])
            shown[photo] = float(getattr(np, row.shown)(values)) if len(values) else None
        table.append(_line(row.label, row.bar, shown, row.good, worst_of(shown, row)))
    table.append(_line("`sonic-ms -h`, s", "<= 0.3", dict.fromkeys(photos), most(0.3), help_seconds))
    return table


def worst_of(shown, row):
    """Of the photos' numbers, one that misses the bar if there is any, else the extreme one."""
    numbers = [number for number in shown.values() if number is not None]
    if not numbers:
        return None
    missing = [number for number in numbers if row.good and not row.good(number)]
    return (max if row.shown == "max" else min)(missing or numbers)


def _line(label, bar, shown, good, worst):
    passed = None if good is None or worst is None else bool(good(worst))
    return {"label": label, "bar": bar, "photos": shown, "worst": worst, "passed": passed}


def to_markdown(table):
    photos = list(table[0]["photos"])
    verdicts = {True: "pass", False: "**FAIL**", None: ""}

    def number(value):
        return "" if value is None else f"{value:.3g}"

    lines = ["| figure | bar | " + " | ".join(photos) + " | worst | |", "|---" * (len(photos) + 4) + "|"]
    for line in table:
        cells = [line["label"], line["bar"], *map(number, line["photos"].values()), number(line["worst"])]
        lines.append("| " + " | ".join([*cells, verdicts[line["passed"]]]) + " |")
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------------------- contact sheet


def contact_sheet(video, audio, phonemes, path):
    """PNG: frames of the head and its mouth above the sound, its phonemes, and the opening measured on the frames."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import ConnectionPatch

    from sonic_ms.evaluate import lip_gap, read_phonemes
    from sonic_ms.face import detect, mesh
    from sonic_ms.media.audio import FPS, SAMPLE_RATE, load_audio
    from sonic_ms.media.video import read_video

    samples, phones = load_audio(audio), read_phonemes(phonemes)
    picked = set(sheet_frames(phones, round(FPS * len(samples) / SAMPLE_RATE)))
    pictures, opening, boxes = {}, [], None
    frames, again = itertools.tee(read_video(video))
    for i, (rgb, found) in enumerate(zip(frames, detect.FaceAnalyzer().track(again))):
        opening.append(np.nan if found is None else 100 * lip_gap(found.points[:, :2].astype(np.float64)))
        if boxes is None and found is not None:
            height = mesh.face_height(found.points)
            boxes = [square(found.points[:, :2].mean(0), 0.75 * height), square(found.points[13, :2], 0.3 * height)]
        if i in picked and boxes:
            pictures[i] = [rgb[box].copy() for box in boxes]
    seconds = len(samples) / SAMPLE_RATE
    figure = plt.figure(figsize=(20, 6), dpi=100)
    grid = figure.add_gridspec(4, len(pictures), height_ratios=(1.5, 1.5, 1, 1), hspace=0.25, wspace=0.03)
    sound, curve = figure.add_subplot(grid[2, :]), figure.add_subplot(grid[3, :])
    sound.plot(np.arange(len(samples))[::8] / SAMPLE_RATE, samples[::8], lw=0.4, color="grey")
    limit = np.abs(samples).max()
    for phone in phones:
        if phone["ipa"]:
            sound.axvline(phone["start"], color="#cccccc", lw=0.5)
            sound.text((phone["start"] + phone["end"]) / 2, 0.75 * limit, phone["ipa"], ha="center", fontsize=9)
    curve.plot((np.arange(len(opening)) + 0.5) / FPS, opening, lw=1.2)
    curve.set_ylabel("lip gap,\n% of face")
    curve.set_xlabel("seconds")
    for axes in (sound, curve):
        axes.set_xlim(0, seconds)
    sound.set_yticks([])
    for column, (i, pair) in enumerate(sorted(pictures.items())):
        for row, picture in enumerate(pair):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f"{(i + 0.5) / FPS:.2f} s", fontsize=8)
        ends = (0.5, 0), ((i + 0.5) / FPS, limit), "axes fraction", "data"
        figure.add_artist(ConnectionPatch(*ends, axesA=axes, axesB=sound, color="#88aaee", lw=0.7))
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)


def square(middle, reach):
    """Slices of the square around a point (x, y) that reaches so many pixels each way."""
    low, high = np.maximum(np.subtract(middle, reach), 0).astype(int), np.add(middle, reach).astype(int)
    return np.s_[low[1] : high[1], low[0] : high[0]]


def sheet_frames(phones, n_frames):
    """Frames in the middle of phonemes, spread over the sentence: SHEET_FRAMES of them at most."""
    middles = [min(int(25 * (p["start"] + p["end"]) / 2), n_frames - 1) for p in phones]
    chosen = np.linspace(0, len(middles) - 1, min(SHEET_FRAMES, len(middles))).round().astype(int)
    return [middles[i] for i in chosen]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", type=Path, required=True, help="folder that make_evaluation_set.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for videos and results")
    parser.add_argument("--json", type=Path, help="where to write the summary (default: OUT/results.json)")
    parser.add_argument("--quick", action="store_true", help="one recording, two sentences, no long clips")
    parser.add_argument("--reuse", action="store_true", help="keep videos and figures that are there already")
    parser.add_argument("--contact-sheet", action="store_true", help="a PNG of the first sentence for each portrait")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    jobs = list_jobs(args.set, args.out, args.quick)
    help_seconds = min(run(["-h"])[0] for _ in range(5))
    results = []
    for i, job in enumerate(jobs):
        print(f"{i + 1}/{len(jobs)} {job.name}", flush=True)
        results.append((job, make(job, args.out, args.reuse)))
    table = summarise(results, help_seconds)
    summary = {"table": table, "clips": {job.name: figures for job, figures in results}}
    (args.json or args.out / "results.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False))
    (args.out / "results.md").write_text(to_markdown(table))
    if args.contact_sheet:
        shown = set()
        for job in jobs:
            if job.group == "sentence" and job.photo not in shown:
                shown.add(job.photo)
                sheet = args.out / f"contact_{job.photo.stem}.png"
                contact_sheet(args.out / f"{job.name}.mp4", job.audio, job.phonemes, sheet)
    print(to_markdown(table))
    return 0 if all(line["passed"] is not False for line in table) else 1


if __name__ == "__main__":
    sys.exit(main())
