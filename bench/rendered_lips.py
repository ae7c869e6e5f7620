"""How much of the curves a viewer sees: `python -m bench.rendered_lips CLIPS PORTRAIT... [--sheet FILE.png]`.

CLIPS as for bench/lips.py. Every portrait speaks the sound of every clip (--seconds of it); the mp4 is read back and
its mouth measured as `sonic-ms data lips` measures one. Printed for each portrait, means over speakers: correlation of
the shown curve with the real mouth, of the mouth in the mp4 with the real mouth, and of the mouth in the mp4 with the
curve. --sheet draws the real mouth, both of these and the loudness of six clips, with frames of the portraits.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.lips import correlation, loudness, means, scaled
from sonic_ms.data.lips import measure
from sonic_ms.data.mouths import load_clips
from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.face.detect import FaceAnalyzer
from sonic_ms.media.audio import FPS, SAMPLES_PER_FRAME
from sonic_ms.media.video import read_video, write_video
from sonic_ms.pipeline import load_model

SHEET_CLIPS, SHEET_FRAMES = 6, 8
SIDE = 384  # of the videos


def cut(clip, seconds):
    """The first seconds of a clip."""
    n = round(seconds * FPS)
    return replace(
        clip,
        samples=clip.samples[: n * SAMPLES_PER_FRAME],
        measures={name: values[: n + max(clip.offset, 0)] for name, values in clip.measures.items()},
    )


def speak(model, portrait, clip, path):
    """(curve that is shown, opening measured in the mp4, faces): both (n,), NaN where no face was found, and the frames
    cut to the face."""
    curve = model.generator.curves(clip.samples, EdgeOptions())[0][:, OPEN]
    video = model.generate(image=portrait, audio=clip.samples, min_resolution=SIDE)
    write_video(video, path, overwrite=True, progress=False)
    frames = list(read_video(path))
    found = list(FaceAnalyzer().track(frames))
    opening = np.full(len(frames), np.nan)
    there = [i for i, one in enumerate(found) if one is not None]
    opening[there] = measure(np.array([found[i].points for i in there]))["opening"]
    points = found[there[0]].points[:, :2]
    (left, top), (right, low) = np.maximum(points.min(0), 0).astype(int), points.max(0).astype(int)
    return curve[: len(frames)], opening, [frame[top:low, left:right] for frame in frames]


def figures(clip, curve, opening):
    """The three correlations of one clip."""
    real = clip.heard("opening")[:, 0]
    n = min(len(real), len(curve), len(opening))
    good = np.isfinite(real[:n]) & np.isfinite(opening[:n])
    real, curve, opening = real[:n][good], curve[:n][good], opening[:n][good]
    return {
        "curve_real": correlation(curve, real),
        "mp4_real": correlation(opening, real),
        "mp4_curve": correlation(opening, np.maximum(curve, 0)),
    }


def draw_sheet(shown, path):
    """shown: [(clip, curve, opening, faces)]."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2 * len(shown), 1, figsize=(14, 4 * len(shown)), height_ratios=[1, 1] * len(shown))
    for i, (clip, curve, opening, faces) in enumerate(shown):
        real, axis = clip.heard("opening")[:, 0], axes[2 * i]
        sound = loudness(clip.samples, len(curve))
        seconds = np.arange(len(curve)) / FPS
        axis.plot(np.arange(len(real)) / FPS, scaled(np.nan_to_num(real)), label="real mouth", lw=2, color="0.3")
        axis.plot(seconds, scaled(curve), label="curve", color="C3")
        axis.plot(
            np.arange(len(opening)) / FPS, scaled(np.nan_to_num(opening)), label="mouth in the mp4", color="C0", lw=1
        )
        axis.plot(seconds, 0.5 * (sound - sound.min()) - 1.2, label="loudness", color="C2", lw=0.8)
        axis.set(
            xlim=(0, seconds[-1]), yticks=[], title=f"clip {i + 1}: r {figures(clip, curve, opening)['mp4_real']:.2f}"
        )
        chosen = np.linspace(0.05, 0.95, SHEET_FRAMES) * (len(faces) - 1)
        axes[2 * i + 1].imshow(np.hstack([faces[round(one)] for one in chosen]))
        axes[2 * i + 1].axis("off")
        for one in chosen:
            axis.axvline(one / FPS, color="0.8", zorder=0)
    axes[0].legend(ncols=4, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=50)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips")
    parser.add_argument("portraits", nargs="+")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--sheet", metavar="FILE")
    args = parser.parse_args()
    model, sheet = load_model(), []
    clips = [cut(clip, args.seconds) for clip in load_clips(args.clips)]
    print("| portrait | clips | curve, real | mp4, real | mp4, curve | mp4 of curve |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for number, portrait in enumerate(args.portraits):
            rows = []
            for i, clip in enumerate(tqdm(clips, leave=False)):
                curve, opening, faces = speak(model, portrait, clip, Path(scratch) / "clip.mp4")
                rows.append((clip.speaker, figures(clip, curve, opening)))
                if i < SHEET_CLIPS and i % len(args.portraits) == number:
                    sheet.append((clip, curve, opening, faces))
            row = means(rows)
            share = row["mp4_real"] / row["curve_real"]
            told = " | ".join(f"{value:.3f}" for value in (*row.values(), share))
            print(f"| {Path(portrait).stem} | {len(rows)} | {told} |", flush=True)
    if args.sheet:
        draw_sheet(sheet, args.sheet)


if __name__ == "__main__":
    sys.exit(main())
