"""Put together what the evaluation is run on: two portraits, five real recordings, ten spoken sentences with times.

    python -m bench.make_evaluation_set --out DIR

Portraits (public domain): Eileen Collins from scikit-image, Grace Hopper from matplotlib. Recordings (public domain):
five LibriVox clips of Debian's package pocketsphinx-testdata. Sentences: the held-out English ones, spoken by espeak-ng
(packages espeak-ng or libespeak-ng1) in held-out voices, each with a JSON list of phonemes and their times.
"""

import argparse
import json
import shutil
import sys
import wave
from pathlib import Path

import numpy as np

from sonic_ms.errors import InputMissingError, SonicError, exit_code
from sonic_ms.train.edge.speech import Espeak
from sonic_ms.train.edge.texts import ESPEAK_VOICES, TEST_SENTENCES, TEST_VARIANTS

RECORDINGS = Path("/usr/share/pocketsphinx/test/data/librivox")
SILENCE = 0.5  # seconds before and after each sentence: pauses to be silent in
RATES = (140, 160, 180)  # words a minute


def write_portraits(folder):
    import matplotlib
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data.astronaut()).save(folder / "astronaut.png")
    shutil.copy(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", folder / "hopper.jpg")


def copy_recordings(source, folder):
    clips = sorted(source.glob("*.wav"))
    if not clips:
        raise InputMissingError(f"recordings {source}: no wav there; expected those of pocketsphinx-testdata (apt-get)")
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        shutil.copy(clip, folder / f"{clip.stem.rsplit('-', 1)[-1]}.wav")


def speak_sentences(folder):
    folder.mkdir(parents=True, exist_ok=True)
    espeak, voices = Espeak(), ESPEAK_VOICES["en"]
    for i, text in enumerate(TEST_SENTENCES["en"]):
        voice = voices[i % len(voices)] + TEST_VARIANTS[(i + i // len(voices)) % len(TEST_VARIANTS)]
        spoken = espeak.say(text, voice, rate=RATES[i % len(RATES)])
        quiet = np.zeros(round(SILENCE * spoken.sample_rate), np.float32)
        before = len(quiet) / spoken.sample_rate
        write_wav(folder / f"{i:02d}.wav", np.concatenate([quiet, spoken.samples, quiet]), spoken.sample_rate)
        end = before + len(spoken.samples) / spoken.sample_rate
        phones = [{"ipa": "", "start": 0.0, "end": before}]
        phones += [{"ipa": p.ipa, "start": p.start + before, "end": p.end + before} for p in spoken.phones]
        phones += [{"ipa": "", "start": end, "end": end + before}]
        (folder / f"{i:02d}.json").write_text(json.dumps(phones, ensure_ascii=False, indent=0), encoding="utf-8")
        (folder / f"{i:02d}.txt").write_text(f"{text}\n{voice}\n", encoding="utf-8")


def write_wav(path, samples, sample_rate):
    """float samples in -1..1, mono, as 16-bit wav."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="folder of wav files of real speech")
    args = parser.parse_args()
    try:
        write_portraits(args.out / "portraits")
        copy_recordings(args.recordings, args.out / "recordings")
        speak_sentences(args.out / "sentences")
    except SonicError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
