import numpy as np
import pytest

from sonic_ms.errors import AssetError
from sonic_ms.train.edge import texts
from sonic_ms.train.edge.articulation import symbols
from sonic_ms.train.edge.audio import pad, to_16k
from sonic_ms.train.edge.speech import Espeak, flite_say

pytestmark = [pytest.mark.needs("espeak-ng", "flite")]


@pytest.fixture(scope="module")
def espeak():
    return Espeak()


def loudness(said, phone):
    part = said.samples[int(phone.start * said.sample_rate) : int(phone.end * said.sample_rate)]
    return float(np.sqrt(np.mean(part**2) + 1e-12))


def test_espeak_phonemes_lie_on_the_sound(espeak):
    said = espeak.say("mama, papa", "gmw/en-US")
    names = [symbol for phone in said.phones for symbol in symbols(phone.ipa)]
    assert names.count("m") == 2 and names.count("p") == 2
    vowels = [loudness(said, phone) for phone in said.phones if phone.ipa[:1] in "ɑɐəa" and phone.ipa]
    pause = [loudness(said, phone) for phone in said.phones if not phone.ipa and phone.end - phone.start > 0.05]
    assert min(vowels) > 5 * max(pause)


def test_phones_are_in_order_and_end_with_the_samples(espeak):
    said = espeak.say("The quick brown fox.", "gmw/en-US")
    starts = [phone.start for phone in said.phones]
    assert starts == sorted(starts)
    assert said.phones[-1].end == pytest.approx(len(said.samples) / said.sample_rate, abs=0.02)


def test_every_voice_and_variant_of_the_recipe_exists(espeak):
    for voices in texts.ESPEAK_VOICES.values():
        for voice in voices:
            espeak.say("a", voice)
    for variant in texts.TRAIN_VARIANTS + texts.TEST_VARIANTS:
        espeak.say("a", "gmw/en-US" + variant)


def test_mandarin_is_spoken_as_mandarin(espeak):
    ipa = "".join(phone.ipa for phone in espeak.say("ni3 hao3", "sit/cmn-Latn-pinyin").phones)
    assert "n" in ipa and "ɑu" in ipa


def test_unknown_voice_is_named(espeak):
    with pytest.raises(AssetError, match="no voice 'xx-none'"):
        espeak.say("a", "xx-none")


def test_flite_phonemes_lie_on_the_sound():
    said = flite_say("A map", "slt")
    names = [symbol for phone in said.phones for symbol in symbols(phone.ipa)]
    assert "m" in names and "p" in names
    vowel = next(phone for phone in said.phones if "æ" in phone.ipa)
    assert loudness(said, vowel) > 5 * loudness(said, said.phones[0])


def test_resampling_and_padding_move_the_times_along():
    said = flite_say("A map", "slt")
    fast = to_16k(said, 1.25)
    assert len(fast.samples) == pytest.approx(len(said.samples) / said.sample_rate / 1.25 * 16000, abs=2)
    assert fast.phones[2].start == pytest.approx(said.phones[2].start / 1.25)
    padded = pad(fast, 0.5, 0.25)
    assert padded.phones[1].start == pytest.approx(fast.phones[0].start + 0.5)
    assert len(padded.samples) == len(fast.samples) + 12000


def test_held_out_voices_and_sentences_are_not_trained_on():
    assert not set(texts.TRAIN_VARIANTS) & set(texts.TEST_VARIANTS)
    assert not set(texts.FLITE_TRAIN_VOICES) & set(texts.FLITE_TEST_VOICES)
