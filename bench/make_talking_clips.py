#!/usr/bin/env python
"""Make synthetic talking clips: portraits that say random sentences in many voices, for trying out the training.

    python -m bench.make_talking_clips DIR --count 60 [--seed 0] --portraits PHOTO [PHOTO ...]

Each clip shows the head of one portrait, 256 pixels high, moved by sonic-edge, for at least 6 s of speech by espeak-ng
or flite that no other clip has. Clips that are there already are kept. Portraits are used in turn.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

SECONDS = 6.0


def say(seed, number, espeak):
    """At least SECONDS of random sentences, 16 kHz."""
    from sonic_ms.media.audio import SAMPLE_RATE
    from sonic_ms.train.edge.audio import speak

    rng = np.random.default_rng([seed, number])
    parts = []
    while sum(map(len, parts)) < SECONDS * SAMPLE_RATE:
        parts.append(speak(rng, espeak, 0.5).samples)
    return np.concatenate(parts)


def head(path):
    """The square around the head of a photo, uint8."""
    from sonic_ms.edge.options import EdgeOptions
    from sonic_ms.edge.portrait import prepare_portrait
    from sonic_ms.face import choose
    from sonic_ms.face.detect import FaceAnalyzer
    from sonic_ms.media.image import load_image

    photo = load_image(path)
    return prepare_portrait(photo, choose.find_mesh(photo, FaceAnalyzer())[0], EdgeOptions(keep_resolution=True)).crop


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", metavar="DIR", type=Path, help="folder to write")
    parser.add_argument("--count", type=int, default=60, help="of clips (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the sentences and voices")
    parser.add_argument("--portraits", nargs="+", required=True, help="photos of faces")
    options = parser.parse_args(arguments)
    from sonic_ms.pipeline import load_model
    from sonic_ms.train.edge.speech import Espeak
    from tests.support.talking_clip import talking_clip

    options.dir.mkdir(parents=True, exist_ok=True)
    heads, model, espeak = [head(path) for path in options.portraits], load_model("sonic-edge"), Espeak()
    for number in range(options.count):
        path = options.dir / f"{options.seed}-{number:04d}.mp4"
        if not path.is_file():
            talking_clip(path, model, heads[number % len(heads)], say(options.seed, number, espeak))
            print(path, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
