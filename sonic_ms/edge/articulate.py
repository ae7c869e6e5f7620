"""Speech -> the curves of a mouth that says it, for people who animate other faces than a photo's."""

import csv
import json
from pathlib import Path

import numpy as np

from sonic_ms.edge.curves import CORNERS, CURVES, JAW, LOWER, OPEN, ROUND, TONGUE, UPPER, WIDTH
from sonic_ms.edge.heard import PRESSED, WIDE
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.files.temporary import Temporary
from sonic_ms.media.audio import FPS, load_audio
from sonic_ms.options import parse

FORMATS = (".npz", ".json", ".csv")
ABOUT_SOUND = (  # options of a video that shape its curves
    "duration", "dynamic_scale", "lip_sync_correction", "align_offset", "smooth_motion", "max_audio_seconds",
)  # fmt: skip


def articulate(audio, sample_rate=None, generator=None, arkit=False, **options):
    """Curves that `generate` would show for a recording, 25 a second: {name: float32 (n,)}.

    audio, sample_rate: as for `generate`. generator: an EdgeGenerator; the shipped model on MindSpore by default.
    arkit: ARKit's blend shapes instead of CURVES. options: those of ABOUT_SOUND.
    Raises UsageError, InputMissingError, AudioError.
    """
    settings = parse(EdgeOptions, options)
    wrong = settings.model_fields_set - set(ABOUT_SOUND)
    if wrong:
        raise UsageError(f"options: {min(wrong)} is for videos; curves have {', '.join(ABOUT_SOUND)}")
    rate = {} if sample_rate is None else {"sample_rate": sample_rate}
    samples = load_audio(audio, max_seconds=settings.max_audio_seconds, duration=settings.duration, **rate)
    if generator is None:
        from sonic_ms.edge.generator import open_folder

        generator = open_folder()
    curves, _ = generator.curves(samples, settings)
    return blend_shapes(curves) if arkit else dict(zip(CURVES, curves.T))


def blend_shapes(curves):
    """Curves (n, 8) as ARKit's blend shapes, {name: float32 (n,) in 0..1}.

    ARKit's `jawOpen` opens the lips as well, and `mouthClose` shuts them over an open jaw: jawOpen follows the larger
    of both openings and mouthClose takes back what the lips do not open.
    """
    opened = np.clip(curves[:, OPEN] / (2 * WIDE), 0, 1)  # ARKit's 1 is as far as it goes, twice a loud vowel
    jaw = np.maximum(np.clip(curves[:, JAW], 0, 1), opened)
    wide, narrow = np.clip(curves[:, WIDTH], 0, 1), np.clip(-curves[:, WIDTH], 0, 1)
    rounding = np.clip(curves[:, ROUND], 0, 1)
    smile, frown = np.clip(curves[:, CORNERS], 0, 1), np.clip(-curves[:, CORNERS], 0, 1)
    press = np.clip(curves[:, OPEN] / PRESSED, 0, 1)
    upper, tuck, tongue = (np.clip(curves[:, index], 0, 1) for index in (UPPER, LOWER, TONGUE))
    shapes = {
        "jawOpen": jaw,
        "mouthClose": jaw - opened,
        "mouthPressLeft": press,
        "mouthPressRight": press,
        "mouthStretchLeft": wide,
        "mouthStretchRight": wide,
        "mouthPucker": np.maximum(rounding, 0.5 * narrow),
        "mouthFunnel": rounding * opened,
        "mouthUpperUpLeft": upper,
        "mouthUpperUpRight": upper,
        "mouthRollLower": tuck,
        "mouthSmileLeft": smile,
        "mouthSmileRight": smile,
        "mouthFrownLeft": frown,
        "mouthFrownRight": frown,
        "tongueOut": 0.2 * tongue,
    }
    return {name: values.astype(np.float32) for name, values in shapes.items()}


def check_format(path):
    """Raise UsageError for a file name whose ending is none of FORMATS."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"output {path}: expected a name that ends in {', '.join(FORMATS)}")


def write_curves(curves, path):
    """Write {name: (n,)} as npz (one array a name), json ({"fps": 25, "curves": {...}}) or csv (a row a frame, with
    its time), by the name's ending; whole or not at all. Raises UsageError, OutputError."""
    check_format(path)
    path = Path(path)
    try:
        with Temporary(path.parent) as temporary:
            if path.suffix.lower() == ".npz":
                with open(temporary, "wb") as file:
                    np.savez(file, **curves)
            else:
                with open(temporary, "w", newline="", encoding="utf-8") as file:
                    (_write_json if path.suffix.lower() == ".json" else _write_csv)(curves, file)
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _write_json(curves, file):
    rounded = {name: [round(float(value), 4) for value in values] for name, values in curves.items()}
    json.dump({"fps": FPS, "curves": rounded}, file)
    file.write("\n")


def _write_csv(curves, file):
    writer = csv.writer(file)
    writer.writerow(["seconds", *curves])
    for number, row in enumerate(zip(*curves.values())):
        writer.writerow([f"{number / FPS:.2f}", *(f"{value:.4f}" for value in row)])
