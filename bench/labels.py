"""The bars of the invisible watermark, on videos of many portraits.

    python -m bench.labels PHOTO [PHOTO ...] --out DIR [--unmarked 300] [--picture FILE]

Every photo speaks SECONDS of the speech that comes with the package, once with the watermark and once without. Figures:

  psnr, worst     of all frames and of the worst one before they are encoded, dB
  as made, crf 28, half + 28, crf 33
                  likeness of the number that was found in the file, after x264 at that quality, after half the size and
                  crf 28; "lost" when none or another was found
  flat, still     greatest step of the mean light of a flat cell from one frame to the next, in levels of 255, in the
                  decoded mp4, with the mark and without
  price           share of the time of making and writing the video that marking takes, in per cent, of processor time

Then --unmarked clips of 2.5 s and 256 pixels, each with a seed and a piece of speech of its own, and all videos without
the mark, as made and after the encodings: how many have one, and the greatest likeness. DIR keeps the videos.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.labels.save import Labels, save_video
from sonic_ms.labels.watermark import Marker, cells_of, read_mark
from sonic_ms.media.audio import SAMPLE_RATE, load_audio
from sonic_ms.media.ffmpeg import ffmpeg_exe
from sonic_ms.media.video import Video
from sonic_ms.pipeline import load_model

SECONDS, CLIP_SECONDS = 6.0, 2.5
FLAT = 2.0  # standard deviation of luma in a cell, in levels, at most
ENCODINGS = {
    "crf 28": ("-crf", "28"),
    "half + 28": ("-vf", "scale=trunc(iw/4)*2:-2", "-crf", "28"),
    "crf 33": ("-crf", "33"),
}


def encode(source, options):
    target = source.with_name(f"{source.stem} {options[-1]}{' half' if '-vf' in options else ''}.mp4")
    command = [ffmpeg_exe(), "-v", "error", "-y", "-i", str(source), *options, "-an", "-c:v", "libx264", str(target)]
    subprocess.run(command, check=True)
    return target


def frames_twice(video, number):
    """(video of frames that are held, dB of all frames, dB of the worst, seconds of marking, seconds of making)."""
    started = time.process_time()
    frames = list(video)
    making = time.process_time() - started
    mark, errors, marking = Marker(number), [], 0.0
    for i, frame in enumerate(frames):
        started = time.process_time()
        marked = mark(frame, i / video.fps)
        marking += time.process_time() - started
        errors.append(np.mean((marked.astype(np.float32) - frame) ** 2))
    decibels = [float(10 * np.log10(255**2 / one)) for one in (np.mean(errors), np.max(errors))]
    held = Video(lambda: iter(frames), video.size, len(frames), None, fps=video.fps, labels=video.labels)
    return held, *decibels, marking, making


def flat_steps(frame, *paths):
    """Greatest step of a flat cell's light between frames of each video, in levels; 0 without a flat cell."""
    height, width = (side // 32 * 32 for side in frame.shape[:2])
    luma = frame[:height, :width].mean(2).reshape(32, height // 32, 32, width // 32)
    flat = luma.std((1, 3)) < FLAT
    return [float(np.abs(np.diff(cells_of(path)[0][:, flat], axis=0)).max(initial=0)) for path in paths]


def measure(model, photo, number, out):
    """Figures of one photo; leaves its videos in `out`."""
    video = model.generate(str(photo), str(DEMO_AUDIO), duration=SECONDS, seed=number % 1000)
    video, psnr, worst, marking, making = frames_twice(video, number)
    marked, plain = out / f"{photo.stem} marked.mp4", out / f"{photo.stem} plain.mp4"
    started = time.process_time()
    video.labels = Labels(f"{number:012x}", watermark=False)
    save_video(video, plain, overwrite=True, progress=False)
    making += time.process_time() - started
    video.labels = Labels(f"{number:012x}")
    save_video(video, marked, overwrite=True, progress=False)
    row = {"photo": photo.stem, "size": list(video.size), "psnr": psnr, "worst": worst}
    files = {"as made": marked} | {name: encode(marked, options) for name, options in ENCODINGS.items()}
    for name, path in files.items():
        found, likeness, _ = read_mark(*cells_of(path))
        row[name] = likeness if found == number else "lost"
    row["flat"], row["still"] = flat_steps(next(iter(video)), marked, plain)
    row["price"] = 100 * marking / making
    others = [plain, *(encode(plain, options) for options in ENCODINGS.values())]
    return row, [read_mark(*cells_of(path)) for path in others], next(iter(video))


def clips(model, photos, count, out):
    """What is found in `count` unmarked clips."""
    speech, path = load_audio(str(DEMO_AUDIO)), out / "clip.mp4"
    length = round(CLIP_SECONDS * SAMPLE_RATE)
    rng = np.random.default_rng(0)
    for seed in range(count):
        start = rng.integers(0, len(speech) - length)
        samples = speech[start : start + length]
        video = model.generate(
            str(photos[seed % len(photos)]), samples, SAMPLE_RATE, seed=seed, min_resolution=256, watermark=False
        )
        save_video(video, path, overwrite=True, progress=False)
        yield read_mark(*cells_of(path))


def draw(path, frame, number):
    """A frame, the same with the mark at its strongest, and 30 times their difference around grey."""
    from PIL import Image

    marked = Marker(number)(frame, 0.24)
    difference = np.clip(128 + 30 * (marked.astype(int) - frame), 0, 255).astype(np.uint8)
    Image.fromarray(np.hstack([frame, marked, difference])).resize((1152, 384)).save(path, quality=90)


def text(rows):
    """The rows in Markdown."""
    names = [name for name in rows[0] if name not in ("photo", "size")]
    lines = ["| photo | size | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        values = (f"{row[name]:.2f}" if isinstance(row[name], float) else str(row[name]) for name in names)
        lines.append(f"| {row['photo']} | {row['size'][0]}x{row['size'][1]} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def summary(unmarked):
    alarms = sum(number is not None for number, _, _ in unmarked)
    return f"{len(unmarked)} unmarked: {alarms} with a mark, likeness at most {max(one[1] for one in unmarked):.3f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--unmarked", type=int, default=300, help="clips to look for a mark in (default: 300)")
    parser.add_argument("--picture", help="write the first photo, marked and unmarked, to this file")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model, rng = load_model(), np.random.default_rng(0)
    rows, unmarked = [], []
    for photo in args.photos:
        number = int(rng.integers(2**48))
        row, more, frame = measure(model, photo, number, args.out)
        rows.append(row)
        unmarked += more
        print(text([row]).splitlines()[-1], flush=True)
        if args.picture and len(rows) == 1:
            draw(args.picture, frame, number)
    print(text(rows))
    for number, found in enumerate(clips(model, args.photos, args.unmarked, args.out), 1):
        unmarked.append(found)
        if number % 50 == 0 or number == args.unmarked:
            print(summary(unmarked), flush=True)
    (args.out / "labels.json").write_text(json.dumps({"rows": rows, "unmarked": unmarked}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
