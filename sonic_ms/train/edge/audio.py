"""Recipe of sonic-edge's audio side: a straight line from Whisper's features to mouths, in closed form.

What a camera can measure (opening, width, jaw) is learnt from measured mouths (data/mouths.py), and from synthetic
speech whose phonemes are known: what each does to a mouth is estimated from the measured mouths, on which a classifier
trained on the synthetic speech says what is spoken, so that no transcripts are needed. The other curves (rounding,
teeth, tongue) follow the textbook on the synthetic speech, and so does the detector of p, b, m. Without measured mouths
the textbook serves for all.

Speaking and listening take minutes and are kept in the run's folder; the rest takes seconds. Every speaker's figures
are of a line that was fitted without him, and so are the quantiles that stretch the openings (edge/heard.py).
"""

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sonic_ms.data.mouths import load_clips
from sonic_ms.edge.audio_features import WINDOW
from sonic_ms.edge.curves import CURVES, JAW, OPEN, ROUND, WIDTH
from sonic_ms.edge.heard import PERCENTILES, WIDE, AudioEncoderConfig, curves_of
from sonic_ms.edge.rig import CHIN_DROP, NARROW, ROUND_NARROW, WIDEN
from sonic_ms.errors import OutputError, UsageError
from sonic_ms.files.config import require
from sonic_ms.files.temporary import Temporary
from sonic_ms.media import audio
from sonic_ms.train.edge import augment, texts
from sonic_ms.train.edge.articulation import (
    BILABIAL,
    SHAPES,
    articulation_curves,
    class_labels,
    dominances,
)
from sonic_ms.train.edge.ear import EAR, TAPS, Ear, save_encoder, set_head, untrained
from sonic_ms.train.edge.lines import Classes, Components, Sums, apply, balanced, context, fold, logistic, ridge
from sonic_ms.train.edge.speech import Espeak, Phone, Utterance, flite_say

LANGUAGE_SHARE = {"en": 0.6, "zh": 0.1, "de": 0.08, "fr": 0.08, "es": 0.07, "it": 0.07}
MEASURED = ("opening", "width", "jaw")
KINDS = ("light", "heavy", "speed")  # of copies
CONDITIONS = ("clean", "noise", "telephone")  # every clip is judged in
HALF_WIDTH = 0.1355  # of a mouth, in face heights: the median of GRID's speakers
CLASSIFIER_COMPONENTS = 64
CLASS_RIDGE = 3.0  # frames that a class must have before its own mean counts
CURVE_RIDGE = 1e-2
LOGISTIC_RIDGE = 1e-4
MOST_GAIN = 2.0
CLOSED = 0.12  # of the 90th percentile: score of closures
FEATURES = EAR.d_model


@dataclass(frozen=True)
class EdgeAudioConfig:
    """clips: folder of measured mouths; none trains on synthetic speech alone. utterances: how many to speak,
    flite_share: part of the English ones that flite speaks. copies: of every clip and each of KINDS, spoilt
    differently. synthetic: weight of the synthetic speech beside the clips; components, ridge: see lines.py. closure:
    log-odds from which on p, b, m close the lips."""

    clips: str | None = None
    utterances: int = 450
    flite_share: float = 0.6
    copies: int = 6
    synthetic: float = 2.0
    components: int = 48
    ridge: float = 0.1
    closure: float = -1.5
    seed: int = 1

    def __post_init__(self):
        checks = (
            ("utterances", self.utterances >= 1, "at least 1"),
            ("flite_share", 0 <= self.flite_share <= 1, "0 to 1"),
            ("copies", self.copies >= 1, "at least 1"),
            ("synthetic", self.synthetic >= 0, "0 or more"),
            ("components", 2 <= self.components <= FEATURES, f"2 to {FEATURES}"),
            ("ridge", self.ridge > 0, "above 0"),
            ("closure", abs(self.closure) <= 10, "-10 to 10"),
            ("seed", self.seed >= 0, "0 or more"),
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
    return pad(to_16k(said, rng.uniform(0.85, 1.2)), rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.6))


def held_out(espeak):
    """Test utterances: held-out sentences in held-out voices. Yields (name, Utterance)."""
    for i, text in enumerate(texts.TEST_SENTENCES["en"]):
        yield f"en-flite-{i}", pad(to_16k(flite_say(text, texts.FLITE_TEST_VOICES[0])), 0.2, 0.2)
    for language, sentences in texts.TEST_SENTENCES.items():
        for i, text in enumerate(sentences):
            voice = texts.ESPEAK_VOICES[language][0] + texts.TEST_VARIANTS[i % len(texts.TEST_VARIANTS)]
            yield f"{language}-espeak-{i}", pad(to_16k(espeak.say(text, voice)), 0.2, 0.2)


def kept(folder, name, what, make):
    """Arrays of make(), from folder/NAME-KEY.npz where they were made before of the same `what`."""
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    path = Path(folder) / f"{name}-{key}.npz"
    if path.is_file():
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    arrays = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Temporary(path.parent) as temporary:
            with open(temporary, "wb") as file:
                np.savez(file, **arrays)
            temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return arrays


def level(samples):
    """Samples with a peak of one half."""
    return samples * np.float32(0.5 / (np.abs(samples).max() + 1e-6))


def speak_all(config, ear):
    """Synthetic utterances: features float16 of a good and of a bad recording, shares and label of the classes of
    phonemes, textbook curves; lengths in frames."""
    espeak, found = Espeak(), []
    for i in tqdm(range(config.utterances), desc="speaking", mininterval=5):
        rng = np.random.default_rng([config.seed, 1, i])
        said = speak(rng, espeak, config.flite_share)
        samples = level(said.samples)
        n = audio.frame_count(len(samples))
        spoilt = [ear(spoil(rng, samples)).astype(np.float16) for spoil in (augment.light, augment.heavy)]
        shapes = dominances(said.phones, n), class_labels(said.phones, n), articulation_curves(said.phones, n)
        found.append((*spoilt, *shapes, np.array([n])))
    names = ("good", "bad", "shares", "labels", "textbook", "lengths")
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found))}


def normalised(clips):
    """[(frame_count, 3)] of the clips, by speaker: opening in his 90th percentiles, width about his mean, jaw above
    his 10th percentile. Raises UsageError."""
    rows, result = [clip.heard(*MEASURED) for clip in clips], []
    scale = {}
    for speaker in {clip.speaker for clip in clips}:
        own = np.concatenate([one for one, clip in zip(rows, clips) if clip.speaker == speaker])
        own = own[np.isfinite(own).all(1)]
        if len(own) < audio.FPS or np.percentile(own[:, 0], 90) < 1e-3:
            raise UsageError(
                f"speaker {speaker} has {len(own)} frames with a face, or keeps the mouth shut; expected {audio.FPS} "
                "frames of speech; leave the clips out"
            )
        scale[speaker] = np.percentile(own[:, 0], 90), own[:, 1].mean(), np.percentile(own[:, 2], 10)
    for one, clip in zip(rows, clips):
        wide, width, jaw = scale[clip.speaker]
        result.append(np.column_stack([one[:, 0] / wide, one[:, 1] - width, one[:, 2] - jaw]))
    return result


def changed_speed(rng, samples, targets):
    """A clip played up to a fifth faster or slower, with its targets."""
    import soxr

    speed = 1 + rng.uniform(-0.2, 0.2)
    fast = soxr.resample(samples, audio.SAMPLE_RATE * speed, audio.SAMPLE_RATE).astype(np.float32)
    n = min(audio.frame_count(len(fast)), len(fast) // audio.SAMPLES_PER_FRAME)
    times = np.minimum((np.arange(n) + 0.5) * speed - 0.5, len(targets) - 1)
    return fast[: n * audio.SAMPLES_PER_FRAME], np.stack(
        [np.interp(times, np.arange(len(targets)), t) for t in targets.T], 1
    )


def copy_all(config, clips, targets, ear):
    """Clips at random places of windows, glued to others, spoilt: features float16 (n, c), targets (n, 3) with NaN in
    the gaps, clip (n,) number, lengths of the windows."""
    found = []
    plan = [(kind, copy) for copy in range(config.copies) for kind in KINDS]
    for number, (kind, _copy) in enumerate(tqdm(plan, desc="listening", mininterval=5)):
        rng = np.random.default_rng([config.seed, 2, number])
        queue = list(rng.permutation(len(clips)))
        while queue:
            samples, rows, names = _window(rng, queue, clips, targets, kind == "speed")
            samples = (augment.heavy if kind == "heavy" else augment.light)(rng, samples)
            found.append((ear(samples).astype(np.float16), rows.astype(np.float32), names))
    names = ("features", "targets", "clip")
    return {name: np.concatenate(parts) for name, parts in zip(names, zip(*found))}


def _window(rng, queue, clips, targets, fast):
    """One window of WINDOW frames filled from the queue of clips' numbers: (samples, targets, numbers)."""
    samples = np.zeros(WINDOW * audio.SAMPLES_PER_FRAME, np.float32)
    rows, names = np.full((WINDOW, len(MEASURED)), np.nan), np.full(WINDOW, -1)
    at = int(rng.integers(0, audio.FPS))
    while queue and at < WINDOW - audio.FPS:
        clip, own = clips[queue[-1]].samples, targets[queue[-1]]
        own = own[: len(clip) // audio.SAMPLES_PER_FRAME]
        if fast:
            clip, own = changed_speed(rng, clip, own)
        if len(own) > WINDOW - at and at > audio.FPS:
            break
        first = int(rng.integers(0, max(1, len(own) - (WINDOW - at) + 1)))  # of long clips a random part
        own = own[first : first + WINDOW - at]
        start = at * audio.SAMPLES_PER_FRAME
        part = clip[first * audio.SAMPLES_PER_FRAME :][: len(own) * audio.SAMPLES_PER_FRAME]
        samples[start : start + len(part)] = part * 10 ** (rng.uniform(-6, 6) / 20)
        rows[at : at + len(own)], names[at : at + len(own)] = own, queue.pop()
        at += len(own) + int(rng.integers(0, audio.FPS // 2))
    return samples, rows, names


def spoil(samples, condition):
    """A clip as it is judged: clean, at 10 dB of noise, or by telephone."""
    if condition == "noise":
        return augment.add_noise(np.random.default_rng(7), samples.astype(np.float64), 10).astype(np.float32)
    return augment.telephone(samples).astype(np.float32) if condition == "telephone" else samples


def judge_all(clips, ear):
    """Features float16 of every clip in every condition, and lengths in frames."""
    arrays = {
        condition: np.concatenate([ear(spoil(clip.samples, condition)).astype(np.float16) for clip in clips])
        for condition in tqdm(CONDITIONS, desc="judging")
    }
    return arrays | {"lengths": np.array([audio.frame_count(len(clip.samples)) for clip in clips])}


class Fit:
    """Everything that a line is fitted from, and the lines for any choice of speakers.

    voices, copies, views: what speak_all, copy_all and judge_all made; the last two None without clips.
    """

    def __init__(self, config, voices, clips=(), targets=(), copies=None, views=None):
        self.config, self.voices, self.clips, self.targets = config, voices, clips, targets
        self.speakers = np.array([clip.speaker for clip in clips])
        good = voices["good"].astype(np.float64)
        bad = voices["bad"].astype(np.float64)
        lengths = voices["lengths"]
        spoken = [good[::4], bad[::4]]
        weights = [np.full(len(one), 0.5 / len(one)) for one in spoken]
        if copies is not None:
            features = copies["features"].astype(np.float64)
            known = (copies["clip"] >= 0) & np.isfinite(copies["targets"]).all(1)
            names = self.speakers[copies["clip"][known]]
            weight = balanced(names)
            some = np.flatnonzero(known)[::6]
            spoken.append(features[some])
            weights.append(weight[::6] / weight[::6].sum())
        every = Components.of(
            np.concatenate(spoken), np.concatenate(weights), max(CLASSIFIER_COMPONENTS, config.components)
        )
        self.wide, self.components = every.first(CLASSIFIER_COMPONENTS), every.first(config.components)
        self.spoken = [context(self.components(one), lengths) for one in (good, bad)]
        both = np.concatenate([context(self.wide(one), lengths) for one in (good, bad)])
        labels = np.tile(voices["labels"], 2)
        self.classes = Classes(both[labels >= 0], labels[labels >= 0], len(SHAPES))
        slopes, bias = logistic(both, labels == BILABIAL, LOGISTIC_RIDGE)
        self.closure = fold(self.wide, slopes[:, None], np.array([bias]))
        # each recording about its own mean: good and bad ones differ in level
        self.shares = [Sums.of(one, voices["shares"].astype(np.float64)).moments() for one in self.spoken]
        if copies is None:
            return
        inputs = context(self.components(features), np.full(len(features) // WINDOW, WINDOW))[known]
        rows = copies["targets"][known].astype(np.float64)
        self.sums = {
            one: Sums.of(inputs[names == one], rows[names == one], weight[names == one]) for one in np.unique(names)
        }
        cuts = np.cumsum(views["lengths"])[:-1]
        self.views = {name: np.split(views[name].astype(np.float64), cuts) for name in CONDITIONS}
        self.posteriors = [
            self.classes.posterior(context(self.wide(one), np.array([len(one)]))) for one in self.views["clean"]
        ]

    def phoneme_targets(self, speakers):
        """What each class of phonemes does to a mouth, (classes, 3), relative to the mean; from these speakers."""
        chosen = [i for i, clip in enumerate(self.clips) if clip.speaker in speakers]
        good = [np.isfinite(self.targets[i]).all(1) for i in chosen]
        shares = np.concatenate([self.posteriors[i][mask] for i, mask in zip(chosen, good)])
        rows = np.concatenate([self.targets[i][mask] for i, mask in zip(chosen, good)])
        weight = balanced(np.repeat(self.speakers[chosen], [mask.sum() for mask in good]))
        weight /= weight.mean()
        rows = rows - weight @ rows / weight.sum()
        weighted = shares * weight[:, None]
        return np.linalg.solve(weighted.T @ shares + CLASS_RIDGE * np.eye(shares.shape[1]), weighted.T @ rows)

    def textbook_targets(self):
        """The same by the textbook, about nothing."""
        shape = np.array([targets for targets, _, _ in SHAPES])
        width = np.where(shape[:, WIDTH] > 0, WIDEN, NARROW) * shape[:, WIDTH] - ROUND_NARROW * shape[:, ROUND]
        jaw = shape[:, JAW] * CHIN_DROP * HALF_WIDTH
        return np.column_stack([np.maximum(shape[:, OPEN], 0) / WIDE, 2 * HALF_WIDTH * width, jaw])

    def line(self, speakers=()):
        """Folded line of MEASURED from the measured mouths of these speakers; without any, from the textbook."""
        config = self.config
        goals = self.phoneme_targets(speakers) if len(speakers) else self.textbook_targets()
        pairs = [(inputs, both @ goals, mean, share @ goals) for inputs, both, mean, share in self.shares]
        spoken = tuple(sum(parts) / len(pairs) for parts in zip(*pairs))
        if not len(speakers):
            return fold(self.components, *ridge(spoken, config.ridge))
        moments = sum((self.sums[one] for one in speakers[1:]), self.sums[speakers[0]]).moments()
        return fold(self.components, *ridge(moments, config.ridge, spoken, config.synthetic))

    def curve_line(self):
        """Folded line of all CURVES by the textbook."""
        rows = self.voices["textbook"].astype(np.float64)
        pairs = [Sums.of(one, rows).moments() for one in self.spoken]
        return fold(self.components, *ridge(tuple(sum(parts) / len(pairs) for parts in zip(*pairs)), CURVE_RIDGE))

    def unseen(self):
        """{condition: [rows of MEASURED of every clip]}, by lines that were fitted without its speaker."""
        everyone = sorted(self.sums)
        found = {name: [None] * len(self.clips) for name in CONDITIONS}
        for speaker in everyone:
            line = self.line([one for one in everyone if one != speaker])
            for i in np.flatnonzero(self.speakers == speaker):
                for name in CONDITIONS:
                    found[name][i] = apply(line, self.views[name][i])
        return found


def in_curves(measured, curves, closure, gains, medians):
    """Lines of MEASURED, of CURVES and of the closure -> (weight, bias) of HEARD. gains, medians: of width and jaw:
    predictions are narrower than the truth, and are widened about their median."""
    weight, bias = np.array(curves[0]), np.array(curves[1])
    weight[:, :, OPEN], bias[OPEN] = measured[0][:, :, 0], measured[1][0]
    unit = 1 / (2 * HALF_WIDTH), 1 / (CHIN_DROP * HALF_WIDTH)
    for index, column, gain, median, scale in zip((WIDTH, JAW), (1, 2), gains, medians, unit):
        weight[:, :, index] = scale * gain * measured[0][:, :, column]
        bias[index] = scale * (median + gain * (measured[1][column] - median))
    weight[:, :, WIDTH] += ROUND_NARROW * curves[0][:, :, ROUND]
    bias[WIDTH] += ROUND_NARROW * curves[1][ROUND]
    return np.concatenate([weight, closure[0]], 2), np.concatenate([bias, closure[1]])


def correlation(one, other):
    """Pearson's, of what both have; 0 where one is flat."""
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    return float(np.corrcoef(one, other)[0, 1]) if len(one) > 2 and one.std() > 1e-9 and other.std() > 1e-9 else 0.0


def speaker_rows(fit, found):
    """A row a speaker: correlation of what was predicted without him with what he did, in every condition."""
    rows = []
    for speaker in sorted(fit.sums):
        own = np.flatnonzero(fit.speakers == speaker)
        row = {"speaker": speaker, "clips": len(own)}
        for name in CONDITIONS:
            for k, measure in enumerate(MEASURED):
                values = [correlation(found[name][i][:, k], fit.targets[i][:, k]) for i in own]
                row[f"{measure}_{name}"] = round(float(np.mean(values)), 4)
        rows.append(row)
    return rows


def spread_of(found, truth):
    """Gains and medians of width and jaw, see in_curves."""
    ratio = np.diff(np.nanpercentile(truth[:, 1:], (10, 90), axis=0), axis=0) / np.maximum(
        np.diff(np.percentile(found[:, 1:], (10, 90), axis=0), axis=0), 1e-6
    )
    return np.clip(ratio[0], 1, MOST_GAIN), np.median(found[:, 1:], axis=0)


def test(line, config, ear):
    """Figures on held-out voices that say held-out sentences: share of p, b, m that close, in every condition, and the
    mean correlation of each curve with the textbook's."""
    closed, follows = {name: [] for name in CONDITIONS}, []
    for _, said in held_out(Espeak()):
        samples, n = level(said.samples), audio.frame_count(len(said.samples))
        for name in CONDITIONS:
            curves = curves_of(apply(line, ear(spoil(samples, name))), config)
            for phone in said.phones:
                if set("pbm") & set(phone.ipa):
                    part = curves[max(0, int(phone.start * audio.FPS) - 1) : int(phone.end * audio.FPS) + 2, OPEN]
                    closed[name].append(part.min() < CLOSED * WIDE)
            if name == "clean":
                truth = articulation_curves(said.phones, n)
                follows.append([correlation(curves[:, k], truth[:, k]) for k in range(len(CURVES))])
    figures = {f"closed_{name}": round(float(np.mean(values)), 4) for name, values in closed.items()}
    return figures | {f"test_{name}": round(float(r), 4) for name, r in zip(CURVES, np.mean(follows, 0))}


def write_table(path, rows):
    """Rows of one set of names as CSV."""
    try:
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def run(config, folder, resume=False):
    """Speak, listen, fit, and write folder/audio/{model.safetensors,config.json}, folder/speakers.csv and
    folder/figures.csv. Returns the figures. What an earlier run of the same settings heard is used again."""
    folder = Path(folder)
    clips = load_clips(config.clips) if config.clips else []
    targets = normalised(clips) if clips else []
    if clips and len({clip.speaker for clip in clips}) < 2:
        raise UsageError(
            f"{config.clips} holds one speaker; expected at least two, of whom each is judged by the others"
        )
    encoder = untrained()
    ear = Ear(encoder)
    spoken = [config.utterances, config.flite_share, config.seed]
    voices = kept(folder, "voices", spoken, lambda: speak_all(config, ear))
    rows, copies, views = [], None, None
    if clips:
        heard = [[clip.name, len(clip.samples), float(np.nansum(own))] for clip, own in zip(clips, targets)]
        copies = kept(
            folder, "copies", [heard, config.copies, config.seed], lambda: copy_all(config, clips, targets, ear)
        )
        views = kept(folder, "views", heard, lambda: judge_all(clips, ear))
    fit = Fit(config, voices, clips, targets, copies, views)
    if clips:
        unseen = fit.unseen()
        rows = speaker_rows(fit, unseen)
        write_table(folder / "speakers.csv", rows)
        talking = np.concatenate([_voiced(clip.samples, len(own)) for clip, own in zip(clips, targets)])
        found, truth = np.concatenate(unseen["clean"])[talking], np.concatenate(targets)[talking]
        measured = fit.line(sorted(fit.sums))
    else:
        measured = fit.line()
        lengths = np.cumsum(voices["lengths"])[:-1]
        found = np.concatenate([apply(measured, one) for one in np.split(voices["good"], lengths)])
        talking = voices["labels"] > 0
        found, truth = found[talking], (voices["shares"] @ fit.textbook_targets())[talking]
    gains, medians = spread_of(found, truth)
    line = in_curves(measured, fit.curve_line(), fit.closure, gains, medians)
    opening = tuple(round(float(value), 4) for value in np.percentile(found[:, 0], PERCENTILES))
    final = AudioEncoderConfig(EAR, TAPS, opening, config.closure)
    set_head(encoder, *line)
    save_encoder(encoder, final, folder / "audio")
    figures = (
        {name: round(float(np.mean([row[name] for row in rows])), 4) for name in list(rows[0])[2:]} if rows else {}
    )
    figures |= test(line, final, ear) | {"width_gain": round(float(gains[0]), 3), "jaw_gain": round(float(gains[1]), 3)}
    write_table(folder / "figures.csv", [{"figure": name, "value": value} for name, value in figures.items()])
    return figures


def _voiced(samples, n):
    """Where a clip speaks, (n,) bool."""
    return np.resize(audio.voice_activity(samples), n)
