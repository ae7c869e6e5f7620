"""Synthetic speech with known phoneme times, for training and for measuring.

Two synthesisers, both run locally: espeak-ng through its C library (any language; phoneme times come from its event
callback) and flite (English voices built from recordings; phoneme times from `-psdur`). Phonemes are IPA strings;
"" stands for silence.
"""

import ctypes
import ctypes.util
import re
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.errors import AssetError

# espeak-ng/speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INIT_PHONEME_EVENTS, _INIT_PHONEME_IPA = 0x1, 0x2
_EVENT_LIST_TERMINATED, _EVENT_PHONEME = 0, 7
_CHARS_UTF8, _SSML = 1, 0x10
_RATE, _PITCH, _RANGE = 1, 3, 4

# flite's phone set (CMU) in IPA
FLITE_TO_IPA = {
    "pau": "", "aa": "ɑː", "ae": "æ", "ah": "ʌ", "ao": "ɔː", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b",
    "ch": "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "m", "en": "ən", "er": "ɜː", "ey": "eɪ",
    "f": "f", "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ", "iy": "iː", "jh": "dʒ", "k": "k", "l": "l", "m": "m",
    "n": "n", "nx": "n", "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ", "s": "s", "sh": "ʃ", "t": "t",
    "th": "θ", "uh": "ʊ", "uw": "uː", "v": "v", "w": "w", "y": "j", "z": "z", "zh": "ʒ",
}  # fmt: skip


@dataclass(frozen=True)
class Phone:
    """One phoneme: IPA symbol ("" is silence) and its start and end in seconds."""

    ipa: str
    start: float
    end: float


@dataclass(frozen=True)
class Utterance:
    """Mono float32 samples in [-1, 1], their rate in Hz, and the phonemes in order."""

    samples: np.ndarray
    sample_rate: int
    phones: tuple


class _Event(ctypes.Structure):
    class _Id(ctypes.Union):
        _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]

    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The espeak-ng library, loaded once per process (it keeps global state, so use one instance).

    Raises AssetError when the library is not installed.
    """

    def __init__(self):
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        try:
            self._lib = ctypes.CDLL(name)
        except OSError as error:
            raise AssetError(f"{name} cannot be loaded ({error}); install it: apt-get install espeak-ng") from error
        self.sample_rate = self._lib.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, None, _INIT_PHONEME_EVENTS | _INIT_PHONEME_IPA
        )
        self._audio, self._events = [], []
        self._callback = _CALLBACK(self._collect)  # kept: ctypes does not own it
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count, events):
        if samples and count > 0:
            self._audio.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type != _EVENT_LIST_TERMINATED:
            if events[i].type == _EVENT_PHONEME:
                raw = ctypes.string_at(ctypes.addressof(events[i].id), 8).split(b"\0")[0]
                self._events.append((events[i].audio_position / 1000, raw.decode("utf-8", "ignore")))
            i += 1
        return 0

    def say(self, text, voice="en-us", rate=160, pitch=50, pitch_range=50):
        """Speak `text`. rate: words a minute (80-450); pitch, pitch_range: 0-100. Returns an Utterance."""
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            raise AssetError(f"espeak-ng has no voice {voice!r}; list them: espeak-ng --voices")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._lib.espeak_SetParameter(parameter, int(value), 0)
        self._audio, self._events = [], []
        data = text.encode()
        self._lib.espeak_Synth(data, len(data) + 1, 0, 0, 0, _CHARS_UTF8, None, None)
        self._lib.espeak_Synchronize()
        samples = np.concatenate(self._audio).astype(np.float32) / 32768
        starts = [time for time, _ in self._events] + [len(samples) / self.sample_rate]
        phones = []
        for i, (start, name) in enumerate(self._events):
            ipa = re.sub(r"[ˈˌ_:\s0-9]", "", name)  # stress marks, pauses, tone digits
            phones.append(Phone(ipa, start, max(start, starts[i + 1])))
        return Utterance(samples, self.sample_rate, tuple(phones))


def flite_say(text, voice="slt", stretch=1.0, pitch_hz=None):
    """Speak English `text` with flite. voice: slt, rms, awb or kal16; stretch > 1 is slower. Returns an Utterance."""
    if shutil.which("flite") is None:
        raise AssetError("flite is not installed; install it: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}"]
        if pitch_hz:
            command += ["--setf", f"int_f0_target_mean={pitch_hz}"]
        command += ["-psdur", "-t", text, "-o", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as file:
            sample_rate = file.getframerate()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    phones, start = [], 0.0
    for name, end in re.findall(r"(\w+):([0-9.]+)", printed):
        phones.append(Phone(FLITE_TO_IPA[name], start, float(end)))
        start = float(end)
    return Utterance(samples, sample_rate, tuple(phones))
