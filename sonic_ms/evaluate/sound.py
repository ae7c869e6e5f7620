"""The mouth against the sound: correlation and lag, closures of bilabials, open vowels, pauses."""

from pathlib import Path

import numpy as np

from sonic_ms.errors import InputMissingError, UsageError, short
from sonic_ms.evaluate.figures import figure
from sonic_ms.files.reading import read_json
from sonic_ms.media.audio import FPS
from sonic_ms.media.lag import MAX_LAG, lag_scores

BILABIALS, OPEN_VOWELS = frozenset("pbm"), frozenset("ɑaæ")  # IPA
CLOSED_AT_MOST = 0.022  # of the face height: the widest reading seen on closed lips
LEAST_WIDE = 0.01  # 90th percentile below which the mouth does not open, and being closed is no merit
LAG = "lag of the mouth, frames"
NEAR_LAG = 2  # frames within which the correlation has to be found
CLOSURE_SHARE, VOWEL_SHARE, PAUSE_SHARE = 0.35, 0.50, 0.15  # of the clip's 90th percentile
MIN_VOWEL, MIN_PAUSE, PAUSE_EDGE = 0.06, 0.9, 0.08  # seconds; mouths stay open in shorter pauses
SURE, CLEARLY = 0.6, 0.3  # correlation with loudness, and above that within a frame, from which on a lag is believed


def read_phonemes(source):
    """Path of a JSON file, or its content: checked list of {"ipa", "start", "end"}, in the order of time."""
    where, expected = "phonemes", 'expected a list of {"ipa": text, "start": seconds, "end": seconds}'
    if not isinstance(source, list):
        where = f"phonemes {source}"
        if not Path(source).is_file():
            raise InputMissingError(f"{where}: no such file; check the path")
        source = read_json(source, f"JSON; {expected}", error=UsageError)
    if not isinstance(source, list):
        raise UsageError(f"{where}: holds a {type(source).__name__}; {expected}")
    for i, phone in enumerate(source):
        good = isinstance(phone, dict) and isinstance(phone.get("ipa"), str)
        good = good and all(type(phone.get(key)) in (int, float) for key in ("start", "end"))
        if not good or not 0 <= phone["start"] <= phone["end"]:
            raise UsageError(f"{where}: entry {i} is {short(phone)}; {expected}, with 0 <= start <= end")
    return sorted(source, key=lambda phone: phone["start"])


def best_lag(opening, envelope):
    """Correlation of the mouth with the sound for each lag: (best lag, r there, r of the best lag within NEAR_LAG).

    Lags are frames by which the mouth comes later, searched up to MAX_LAG each way; inputs (n,) of one length.
    """
    scores = lag_scores(opening, envelope)
    best = max(scores, key=scores.get)
    return best, scores[best], max(scores[lag] for lag in range(-NEAR_LAG, NEAR_LAG + 1))


def opening_zero(opening, photo_opening):
    """What this face's closed lips measure; see the module's header. opening: (n,) lip_gap of a clip."""
    if photo_opening <= CLOSED_AT_MOST:
        return photo_opening
    return min(float(np.percentile(opening, 2)), CLOSED_AT_MOST)


def mouth_figures(raw, photo_opening, envelope, voiced, phones):
    """How the mouth follows the sound. raw: (n,) lip_gap of the clip, photo_opening that of the photo; envelope (n,)
    loudness and voiced (n,) bool a frame; phones: read_phonemes or None."""
    n = min(len(raw), len(envelope))
    zero = opening_zero(raw, photo_opening)
    opening = np.maximum(raw - zero, 0)
    wide = float(np.percentile(opening, 90))
    figures = {
        "opening_zero": figure(
            "mouth zero, of the face height", zero, note=f"photo {photo_opening:.3f}, least of the clip {raw.min():.3f}"
        ),
        "opening_mean": figure("mouth opening, mean, of the face height", opening.mean()),
        "opening_p90": figure(
            "mouth opening, 90th percentile", wide, f">= {LEAST_WIDE:g}", wide >= LEAST_WIDE if voiced.any() else None
        ),
    }
    moving = voiced.any() and n > 4 * MAX_LAG and envelope[:n].std() > 1e-4
    lag, r, near = best_lag(opening[:n], envelope[:n]) if moving else (None, None, None)
    note = f"best of +-{MAX_LAG} frames: {r:.2f}" if moving else "no speech"
    # no bar: real mouths follow loudness at 0 to 0.4 in free speech (docs/measured/lips.md)
    figures["envelope_r"] = figure(f"mouth against loudness, r within +-{NEAR_LAG} frames", near, note=note)
    figures["envelope_lag"] = _lag(opening[:n], envelope[:n], lag, r) if moving else figure(LAG, None, "-1 to 1")
    if phones is not None:
        closures = [_within(opening, *span).min(initial=np.inf) for span in spans_of(phones, vowel=False)]
        vowels = [_within(opening, *span).max(initial=0) for span in spans_of(phones, vowel=True)]
        figures["bilabials"] = _share("p, b, m that close", closures, wide, at_most=CLOSURE_SHARE)
        figures["open_vowels"] = _share("open vowels that open", vowels, wide, at_least=VOWEL_SHARE)
    rests = []
    for start, end in pauses_of(phones, voiced):
        part = _within(opening, start + PAUSE_EDGE, end - PAUSE_EDGE, slack=0)
        rests += [float(np.median(part)) / max(wide, LEAST_WIDE)] if len(part) else []
    source = "voice activity" if phones is None else "phonemes"
    worst = max(rests, default=None)
    figures["pauses"] = figure(
        "opening in the widest pause, of the 90th percentile", worst, f"<= {PAUSE_SHARE:g}",
        worst is not None and worst <= PAUSE_SHARE, f"{len(rests)} pauses by {source}", rests,
    )  # fmt: skip
    if photo_opening > CLOSED_AT_MOST and worst is not None:
        # zero is that of pressed lips then, and lips at rest lie less tight
        figures["pauses"] |= {"passed": None, "note": "no verdict: the photo's lips are apart"}
    for name in ("bilabials", "pauses"):
        if name in figures and not (wide >= LEAST_WIDE and voiced.any()):
            figures[name] |= {"value": None, "passed": None, "items": [], "note": "the mouth stays shut"}
    return figures


def _lag(opening, envelope, lag, r):
    """Figure of a lag; without a verdict where the loudness does not tell, as with most real mouths."""
    scores = lag_scores(opening, envelope, most=1)
    near = abs(lag) <= 1
    told = r >= SURE and (near or r >= max(scores.values()) + CLEARLY)
    note = "positive: mouth late" if told else "loudness does not tell"
    return figure(LAG, lag, "-1 to 1", near if told else None, note)


def _share(label, values, wide, at_most=None, at_least=None):
    """Share of `values` within `at_most` or beyond `at_least` of the clip's 90th percentile; bar 85 %."""
    ratios = [float(value) / max(wide, LEAST_WIDE) for value in values]
    good = [ratio <= at_most if at_least is None else ratio >= at_least for ratio in ratios]
    limit = f"<= {at_most:g}" if at_least is None else f">= {at_least:g}"
    value = float(np.mean(good)) if good else None
    note = f"{sum(good)} of {len(good)} have {limit} of the 90th percentile"
    return figure(label, value, ">= 0.85", good and value >= 0.85, note, ratios)


def spans_of(phones, vowel):
    """(start, end) of every bilabial, or of every open vowel of at least MIN_VOWEL seconds."""
    wanted = OPEN_VOWELS if vowel else BILABIALS
    shortest = MIN_VOWEL if vowel else 0.0
    return [
        (phone["start"], phone["end"])
        for phone in phones
        if phone["ipa"][:1] in wanted and phone["end"] - phone["start"] >= shortest - 1e-9
    ]


def pauses_of(phones, voiced):
    """(start, end) in seconds of every silence of at least MIN_PAUSE: from the phonemes, or where none are known, from
    the voice activity, bool (n,)."""
    spans = []
    if phones is None:
        edges = np.flatnonzero(np.diff(np.concatenate([[True], voiced, [True]]).astype(np.int8))) / FPS
        spans = list(zip(edges[::2], edges[1::2]))
    else:
        end = 0.0
        for phone in [*phones, {"ipa": "end", "start": len(voiced) / FPS, "end": len(voiced) / FPS}]:
            if phone["ipa"]:
                spans.append((end, phone["start"]))
                end = phone["end"]
    return [(float(start), float(stop)) for start, stop in spans if stop - start >= MIN_PAUSE - 1e-9]


def _within(values, start, end, slack=0.5):
    """Values (n,) of the frames whose middle is in [start, end] seconds, give or take `slack` frames."""
    middles = np.arange(len(values)) + 0.5
    return values[(middles >= start * FPS - slack) & (middles <= end * FPS + slack)]
