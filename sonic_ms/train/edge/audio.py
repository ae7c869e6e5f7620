"""Recipe of sonic-edge's audio side: synthetic speech -> log-mel -> articulation curves.

Stage 1 speaks random sentences in many voices and stores features and target curves; stage 2 trains on windows of
them. Held-out voices speaking held-out sentences are the validation set.
"""

from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from sonic_ms.edge.audio_encoder import AudioEncoder, AudioEncoderConfig
from sonic_ms.edge.audio_features import HALO, MEL_PER_FRAME, WINDOW, mel_windows, normalise_mel
from sonic_ms.edge.curves import OPEN
from sonic_ms.files.config import require
from sonic_ms.files.weights import load_weights, save_model
from sonic_ms.media import audio
from sonic_ms.train.edge import texts
from sonic_ms.train.edge.articulation import articulation_curves
from sonic_ms.train.edge.augment import augment
from sonic_ms.train.edge.speech import Espeak, Phone, Utterance, flite_say
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

LANGUAGE_SHARE = {"en": 0.55, "zh": 0.2, "de": 0.08, "fr": 0.06, "es": 0.06, "it": 0.05}
VIEWS = 3  # differently augmented versions of each utterance


@dataclass(frozen=True)
class EdgeAudioConfig:
    """utterances: how many to speak for training; flite_share: part of the English ones spoken by flite."""

    loop: LoopConfig
    utterances: int = 3600
    flite_share: float = 0.5
    closure_weight: float = 3.0
    velocity_weight: float = 1.0

    def __post_init__(self):
        checks = (
            ("utterances", self.utterances >= 1, "at least 1"),
            ("flite_share", 0 <= self.flite_share <= 1, "0 to 1"),
            ("closure_weight", self.closure_weight >= 0, "0 or more"),
            ("velocity_weight", self.velocity_weight >= 0, "0 or more"),
        )
        require(self, checks)


def to_16k(utterance, speed=1.0):
    """Resample to 16 kHz; `speed` > 1 plays faster and higher (formants move too). Phone times follow."""
    import soxr

    samples = soxr.resample(utterance.samples, utterance.sample_rate * speed, audio.SAMPLE_RATE)
    phones = tuple(Phone(phone.ipa, phone.start / speed, phone.end / speed) for phone in utterance.phones)
    return Utterance(samples.astype(np.float32), audio.SAMPLE_RATE, phones)


def pad(utterance, before, after):
    """Silence of `before` and `after` seconds around a 16 kHz utterance."""
    zeros = [np.zeros(round(seconds * audio.SAMPLE_RATE), np.float32) for seconds in (before, after)]
    phones = (
        Phone("", 0.0, before),
        *(Phone(phone.ipa, phone.start + before, phone.end + before) for phone in utterance.phones),
    )
    samples = np.concatenate([zeros[0], utterance.samples, zeros[1]])
    return Utterance(samples, audio.SAMPLE_RATE, (*phones, Phone("", phones[-1].end, phones[-1].end + after)))


def speak(rng, espeak, flite_share):
    """One random training utterance at 16 kHz with random voice, rate, pitch and silences around it."""
    language = str(rng.choice(list(LANGUAGE_SHARE), p=list(LANGUAGE_SHARE.values())))
    text = texts.random_sentence(rng, language)
    if language == "en" and rng.random() < flite_share:
        said = flite_say(text, str(rng.choice(texts.FLITE_TRAIN_VOICES)), rng.uniform(0.8, 1.5))
    else:
        voice = str(rng.choice(texts.ESPEAK_VOICES[language])) + str(rng.choice(texts.TRAIN_VARIANTS))
        said = espeak.say(text, voice, rng.integers(110, 230), rng.integers(20, 85), rng.integers(20, 90))
    return pad(to_16k(said, rng.uniform(0.85, 1.2)), rng.uniform(0, 0.8), rng.uniform(0, 0.8))


def held_out(espeak):
    """Test utterances: held-out sentences in held-out voices. Yields (name, Utterance)."""
    for i, text in enumerate(texts.TEST_SENTENCES["en"]):
        yield f"en-flite-{i}", to_16k(flite_say(text, texts.FLITE_TEST_VOICES[0]))
    for language, sentences in texts.TEST_SENTENCES.items():
        for i, text in enumerate(sentences):
            voice = texts.ESPEAK_VOICES[language][0] + texts.TEST_VARIANTS[i % len(texts.TEST_VARIANTS)]
            yield f"{language}-espeak-{i}", to_16k(espeak.say(text, voice))


def features(samples):
    """16 kHz samples -> normalised log-mel (80, n)."""
    return normalise_mel(audio.log_mel(samples))


def build(config, folder):
    """Speak and store the training set (features float16, curves float32) as folder/speech.npz, once."""
    path = Path(folder) / "speech.npz"
    if path.is_file():
        return path
    espeak = Espeak()
    pairs = []
    for i in tqdm(range(config.utterances), desc="speaking", mininterval=5):
        rng = np.random.default_rng([config.loop.seed, 1, i])
        said = speak(rng, espeak, config.flite_share)
        n_frames = audio.frame_count(len(said.samples))
        if n_frames >= 8:
            pairs += views(rng, said.samples, articulation_curves(said.phones, n_frames))
    return store(path, pairs)


def views(rng, samples, curves):
    """VIEWS pairs (features float16 (80, 4n), curves (n, 8)) of one utterance, augmented differently."""
    length = MEL_PER_FRAME * len(curves)
    return [(_fit(features(augment(rng, samples)), length).astype(np.float16), curves) for _ in range(VIEWS)]


def store(path, pairs):
    """Write pairs of `views` as the file that SpeechWindows reads; returns its path."""
    mels, curves = zip(*pairs)
    lengths = np.array([len(curve) for curve in curves])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}.tmp.npz")
    np.savez(temporary, mel=np.concatenate(mels, 1), curves=np.concatenate(curves), lengths=lengths)
    temporary.replace(path)
    return path


def _fit(mel, n):
    """Cut or extend (80, m) to n frames; the last frame is repeated."""
    return np.pad(mel[:, :n], ((0, 0), (0, max(0, n - mel.shape[1]))), mode="edge")


class SpeechWindows:
    """Random (mel, curves, weight) windows out of the stored utterances."""

    def __init__(self, path):
        data = np.load(path)
        self.mel, self.curves, self.lengths = data["mel"], data["curves"], data["lengths"]
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])

    def batch(self, rng, size):
        """Neighbouring utterances follow each other in a window, as sentences do in a recording."""
        frames = WINDOW
        mel = np.empty((size, self.mel.shape[0], 1, MEL_PER_FRAME * frames), np.float32)
        target = np.empty((size, self.curves.shape[1], frames), np.float32)
        for i in range(size):
            start = int(rng.integers(0, self.starts[-1] - frames))
            mel[i, :, 0] = self.mel[:, MEL_PER_FRAME * start : MEL_PER_FRAME * (start + frames)]
            target[i] = self.curves[start : start + frames].T
        return mel + rng.normal(0, 0.02, mel.shape).astype(np.float32), target


class CurveLoss(nn.Cell):
    """Squared error of values and of velocities; frames with pressed lips count more, because viewers see them."""

    def __init__(self, encoder, closure_weight, velocity_weight):
        super().__init__()
        self.encoder = encoder
        self.closure_weight = closure_weight
        self.velocity_weight = velocity_weight

    def construct(self, mel, target):
        predicted = self.encoder(mel)  # (b, n_curves, t)
        closed = ops.cast(target[:, OPEN : OPEN + 1, :] < 0, ms.float32)
        weight = 1 + self.closure_weight * closed
        error = predicted - target
        velocity = error[:, :, 1:] - error[:, :, :-1]
        return ops.reduce_mean(weight * error * error) + self.velocity_weight * ops.reduce_mean(velocity * velocity)


def predict(encoder, mel, n_frames):
    """Curves (n_frames, 8) of one clip, window by window; mel (80, n) normalised. Used by validation."""
    out = np.empty((n_frames, encoder.n_curves), np.float32)
    for start, window in mel_windows(mel, n_frames):
        part = encoder(ms.Tensor(np.ascontiguousarray(window, np.float32))).asnumpy()[0, :, HALO:-HALO].T
        out[start : start + len(part)] = part[: n_frames - start]
    return out


def scores(encoder, espeak):
    """Held-out figures: mean correlation over curves and utterances, root mean square error, and the share of
    closed-lip frames (target < 0) that are predicted closed (< 0.1)."""
    correlations, errors, closed = [], [], []
    for _, said in held_out(espeak):
        n_frames = audio.frame_count(len(said.samples))
        target = articulation_curves(said.phones, n_frames)
        predicted = predict(encoder, features(said.samples), n_frames)
        errors.append(np.mean((predicted - target) ** 2))
        correlations.append(np.corrcoef(predicted[:, OPEN], target[:, OPEN])[0, 1])
        closed.append((predicted[:, OPEN] < 0.1)[target[:, OPEN] < -0.1])
    return {
        "test_rmse": float(np.sqrt(np.mean(errors))),
        "test_open_r": float(np.mean(correlations)),
        "test_closed": float(np.mean(np.concatenate(closed))),
    }


def run(config, folder, resume=False):
    """Build the data if needed, train, and write folder/audio/{model.safetensors,config.json}. Returns the scores."""
    folder = Path(folder)
    windows = SpeechWindows(build(config, folder))
    ms.set_seed(config.loop.seed)
    encoder = AudioEncoder(AudioEncoderConfig())
    espeak = Espeak()
    loss = CurveLoss(encoder, config.closure_weight, config.velocity_weight)

    def judge(step):
        return scores(encoder, espeak)

    last = train(loss, windows.batch, config.loop, folder, judge, resume, identity_of(config))
    encoder.set_train(False)
    save_model(encoder, AudioEncoderConfig(), folder / "audio")
    load_weights(encoder, folder / "audio")
    return last
