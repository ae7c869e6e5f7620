"""How well sonic-edge's curves follow real mouths: `python bench/lips.py CLIPS [--bundle DIR --engine NAME]`.

CLIPS: folder of measured mouths as `sonic-ms data lips` writes them, of people the model was not trained on. Every clip
is heard clean, with noise 10 dB below the speech and by telephone. Figures, each the mean over speakers of the means
over their clips:

  r_open, r_width, r_jaw   correlation of the shown curve with the measured one, frame by frame
  f1                       of closed frames (below 0.12 of the 90th percentile while there is voice), give or take one
  r_loud, real_loud        correlation of the shown, of the real opening with loudness
  p50, step                median of the opening in speech and mean change from frame to frame, of the 90th percentile
  lag                      frames by which the shown curve comes late, best of +-4

No weights and no constants may be chosen by these figures.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sonic_ms.data.mouths import load_clips
from sonic_ms.edge.articulate import articulate
from sonic_ms.media.audio import SAMPLES_PER_FRAME
from sonic_ms.pipeline import load_model
from sonic_ms.train.edge.augment import SAMPLE_RATE, shaped_noise, telephone

CLOSED = 0.12  # of the 90th percentile
MOST_LAG = 4  # frames
NOISE_DB, NOISE_SLOPE = 10, -3  # below the clip's level; dB an octave


def correlation(one, other):
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 1e-9 and other.std() > 1e-9 else 0.0


def scaled(opening):
    """Openings above the 2nd percentile, in 90th percentiles."""
    opening = np.maximum(opening - np.percentile(opening, 2), 0)
    return opening / max(np.percentile(opening, 90), 1e-9)


def loudness(samples, n):
    """log10 of the RMS of 120 ms around every frame, (n,)."""
    step = SAMPLES_PER_FRAME
    power = [np.mean(samples[max(0, (i - 1) * step) : (i + 2) * step].astype(np.float64) ** 2) for i in range(n)]
    return np.log10(np.sqrt(np.array(power) + 1e-18) + 1e-4)


def closures_f1(shown, real, voiced):
    """F1 of closed frames, each of which may be one frame off."""

    def near(mask):
        return mask | np.r_[mask[1:], False] | np.r_[False, mask[:-1]]

    shown, real = shown & voiced, real & voiced
    precision = (shown & near(real)).sum() / max(shown.sum(), 1)
    recall = (real & near(shown)).sum() / max(real.sum(), 1)
    return 2 * precision * recall / max(precision + recall, 1e-9)


def clip_figures(clip, curves):
    """Figures of one clip, {name: number}; curves {name: (n,)}."""
    real = clip.heard("opening", "width", "jaw")
    n = min(len(real), len(curves["open"]))
    seen = np.isfinite(real[:n]).all(1)
    real, sound = real[:n][seen], loudness(clip.samples, n)[seen]
    shown = {name: curves[name][:n][seen] for name in ("open", "width", "jaw")}
    voiced = sound > np.percentile(sound, 95) - 1.6
    opening, ours = scaled(real[:, 0]), scaled(shown["open"])

    def shifted(lag):
        late, early = slice(max(0, lag), len(opening) + min(0, lag)), slice(max(0, -lag), len(opening) - max(0, lag))
        return correlation(shown["open"][late], real[early, 0])

    return {
        "r_open": correlation(shown["open"], real[:, 0]),
        "r_width": correlation(shown["width"], real[:, 1]),
        "r_jaw": correlation(shown["jaw"], real[:, 2]),
        "f1": closures_f1(ours < CLOSED, opening < CLOSED, voiced),
        "r_loud": correlation(shown["open"], sound),
        "real_loud": correlation(real[:, 0], sound),
        "p50": float(np.median(ours[voiced])),
        "step": float(np.abs(np.diff(ours)).mean()),
        "lag": float(max(range(-MOST_LAG, MOST_LAG + 1), key=shifted)),
    }


def spoilt(samples, condition):
    if condition == "noise 10 dB":
        spectrum = shaped_noise(np.random.default_rng(7), len(samples), NOISE_SLOPE)
        return samples + spectrum * np.sqrt(np.mean(samples**2)) * 10 ** (-NOISE_DB / 20)
    return telephone(samples) if condition == "telephone" else samples


def means(rows):
    """Mean over speakers of {name: number} rows, [(speaker, row)]."""
    people = {}
    for speaker, row in rows:
        people.setdefault(speaker, []).append(row)
    own = [{name: np.mean([row[name] for row in rows]) for name in rows[0]} for rows in people.values()]
    return {name: float(np.mean([one[name] for one in own])) for name in own[0]}


def measure(folder, generator, conditions=("clean", "noise 10 dB", "telephone"), **options):
    """[(condition, clips chosen, figures)] and seconds of work a second of sound."""
    clips, table, seconds, heard = load_clips(folder), [], 0.0, 0.0
    articulate(clips[0].samples, SAMPLE_RATE, generator, **options)  # compiles
    for condition in conditions:
        rows = []
        for clip in clips:
            samples = np.clip(spoilt(clip.samples, condition), -1, 1).astype(np.float32)
            started = time.perf_counter()
            curves = articulate(samples, SAMPLE_RATE, generator, **options)
            seconds, heard = seconds + time.perf_counter() - started, heard + len(samples) / SAMPLE_RATE
            rows.append((clip, clip_figures(clip, curves)))
        for label, keep in (("all", lambda clip: True), ("not English", lambda clip: clip.lang != "en")):
            chosen = [(clip.speaker, row) for clip, row in rows if keep(clip)]
            if chosen:
                table.append((condition, f"{label} ({len(chosen)} clips)", means(chosen)))
    return table, seconds / heard


def text(table):
    """The table in Markdown."""
    names = list(table[0][2])
    lines = ["| sound | clips | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    lines += [
        f"| {sound} | {clips} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |"
        for sound, clips, row in table
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("--model", default="sonic-edge")
    parser.add_argument("--bundle")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    generator = load_model(args.model, args.engine, args.bundle).generator
    table, speed = measure(args.clips, generator)
    print(text(table))
    print(f"\n{speed:.4f} seconds a second of sound")
    if args.json:
        Path(args.json).write_text(json.dumps({"table": table, "seconds": speed}, indent=1) + "\n")


if __name__ == "__main__":
    main()
