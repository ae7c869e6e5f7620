"""The session keeps time, whatever is pushed and whoever pulls. No model: a speaker that draws at once."""

import numpy as np
import pytest

from sonic_ms.errors import AudioError, Cancelled, ResourceError, UsageError
from tests.support.live_speech import InStep, PlainSpeaker, SteppedClock, numbered, plain_session


def pull(session, count):
    return [session.pull() for _ in range(count)]


def sound(frames):
    return np.concatenate([frame.audio for frame in frames])


def test_silence_still_moves_at_25_frames_a_second():
    session, _, clock = plain_session()
    frames = pull(session, 50)
    assert [frame.index for frame in frames] == list(range(50))
    assert clock.now() - 1000 == pytest.approx(49 / 25)
    assert not sound(frames).any() and all(frame.position is None for frame in frames)


def test_every_sample_comes_out_once_and_in_its_frame():
    session, speaker, _ = plain_session()
    session.push(numbered(30))
    session.end()
    frames = list(session)
    assert len(frames) == 30
    np.testing.assert_array_equal(sound(frames), numbered(30))
    assert [frame.position for frame in frames] == pytest.approx([i / 25 for i in range(30)])
    assert [ahead for _, ahead in speaker.drawn][:25] == [5] * 25  # the look-ahead, then what is left of it


@pytest.mark.parametrize("chunk", [1, 7, 160, 641, 5000])
def test_chunks_of_any_size(chunk):
    session, _, _ = plain_session()
    samples = numbered(12)[: 12 * 640 - 3]
    for first in range(0, len(samples), chunk):
        session.push(samples[first : first + chunk])
    session.end()
    out = sound(list(session))
    np.testing.assert_array_equal(out[: len(samples)], samples)
    assert len(out) == 12 * 640 and not out[len(samples) :].any()


@pytest.mark.parametrize("chunk", [1, 3, 641])
def test_bytes_may_break_in_the_middle_of_a_sample(chunk):
    samples = (np.sin(np.arange(2000)) * 30000).astype("<i2")
    session, _, _ = plain_session()
    data = samples.tobytes()
    for first in range(0, len(data), chunk):
        session.push(data[first : first + chunk])
    session.end()
    np.testing.assert_array_equal(sound(list(session))[:2000], samples / np.float32(32768))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_and_stereo(rate):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32)
    stereo = (np.stack([tone, tone], 1) * 32767).astype(np.int16)
    session, _, _ = plain_session()
    for first in range(0, rate, rate // 50):
        session.push(stereo[first : first + rate // 50], rate)
    session.end()
    out = sound(list(session))
    assert 0.95 < len(out) / 16000 <= 1.04  # the resampler keeps the last few milliseconds
    spectrum = np.abs(np.fft.rfft(out[1000:15000] * np.hanning(14000)))
    assert spectrum.argmax() * 16000 / 14000 == pytest.approx(440, abs=2)


def test_in_step_nothing_is_lost_and_the_lateness_is_the_look_ahead():
    session, speaker, clock = plain_session(look_ahead=0.2)
    InStep(session, clock, numbered(200))
    frames = pull(session, 206)
    spoken = [frame for frame in frames if frame.position is not None]
    np.testing.assert_array_equal(sound(spoken)[: 195 * 640], numbered(195))
    assert {frame.index - round(25 * frame.position) for frame in spoken} == {spoken[0].index}
    assert 5 <= spoken[0].index <= 7
    assert {round(frame.delay, 2) for frame in spoken[:190]} <= {0.2, 0.22, 0.24}
    assert speaker.most_ahead == 6


def test_a_sender_that_stutters_by_less_than_the_look_ahead_is_not_heard_to():
    session, _, clock = plain_session()
    rng = np.random.default_rng(0)
    samples, sent = numbered(250), 0

    def send():
        nonlocal sent
        due = (clock.now() - 1000) * 16000 - rng.uniform(0, 0.12) * 16000
        while sent < len(samples) and sent + 320 <= due:
            session.push(samples[sent : sent + 320])
            sent += 320

    clock.before = send
    spoken = [frame for frame in pull(session, 250) if frame.position is not None]
    np.testing.assert_array_equal(sound(spoken), numbered(250)[: len(spoken) * 640])
    assert len({frame.index - round(25 * frame.position) for frame in spoken}) == 1  # no gap


def test_a_sender_that_stalls_gets_silence_and_then_goes_on():
    session, _, clock = plain_session()
    session.push(numbered(10))
    first = pull(session, 40)
    assert sum(frame.position is not None for frame in first) == 10
    assert clock.now() - 1000 == pytest.approx(39 / 25)
    session.push(numbered(20)[10 * 640 :])
    later = [frame for frame in pull(session, 40) if frame.position is not None]
    np.testing.assert_array_equal(sound(later), numbered(20)[10 * 640 :])


def test_a_short_last_piece_is_not_kept_for_ever():
    session, _, _ = plain_session()
    session.push(numbered(1)[:100])
    out = sound(pull(session, 20))
    np.testing.assert_array_equal(out[out != 0], numbered(1)[:100])


def test_interrupt_drops_what_waits_and_what_was_looked_ahead_to():
    session, speaker, _ = plain_session()
    session.push(numbered(100))
    pull(session, 10)
    session.interrupt()
    after = pull(session, 20)
    assert not sound(after).any() and session.queued == 0 and speaker.interrupted == 1
    session.interrupt()
    session.interrupt()
    assert not sound(pull(session, 2)).any()
    session.push(numbered(30))
    again = [frame for frame in pull(session, 40) if frame.position is not None]
    np.testing.assert_array_equal(sound(again), numbered(30))


def test_late_pictures_are_dropped_and_never_slow_the_sound():
    clock = SteppedClock(work=0.06)  # a picture takes longer than a frame lasts
    session, speaker, clock = plain_session(clock)
    session.push(numbered(200))
    frames = pull(session, 200)
    assert clock.now() - 1000 < 200 / 25 + 0.1
    np.testing.assert_array_equal(sound(frames), numbered(200))
    missing = sum(frame.image is None for frame in frames)
    assert missing == session.dropped == speaker.skipped and 55 < missing < 80


def test_a_receiver_that_stays_away_finds_the_time_passed_over():
    session, _, clock = plain_session()
    session.push(numbered(1000))
    before = pull(session, 5)
    clock.time += 20
    after = pull(session, 5)
    assert after[0].index == pytest.approx(before[-1].index + 500, abs=1)
    assert after[0].position == pytest.approx(after[0].time, abs=0.05)
    assert session.dropped >= 495 and after[0].image is not None


def test_a_receiver_that_never_reads_costs_no_more_than_the_queue():
    session, speaker, _ = plain_session(most_queued=2)
    with pytest.raises(ResourceError, match=r"2\.0 s of sound wait and 0\.0 s more .* at most 2 s; push no faster"):
        for _ in range(1000):
            session.push(np.zeros(640, np.float32))
    assert session.queued == 2 and not speaker.drawn


def test_a_flood_is_refused_as_a_whole_and_the_session_goes_on():
    session, _, _ = plain_session(most_queued=2)
    session.push(numbered(25))
    with pytest.raises(ResourceError) as problem:
        session.push(np.zeros(16000 * 60, np.float32))
    assert "\n" not in str(problem.value) and session.queued == 1
    session.end()
    np.testing.assert_array_equal(sound(list(session)), numbered(25))


def test_a_microphone_that_runs_ahead_is_trimmed():
    session, _, clock = plain_session(microphone=True)
    session.push(numbered(100))  # held up somewhere, then all at once
    InStep(session, clock, numbered(100), begin=clock.now())
    frames = pull(session, 100)
    assert session.left_out > 85 * 640
    assert max(frame.delay for frame in frames[20:] if frame.delay) < 0.45


@pytest.mark.parametrize(
    ("chunk", "rate", "match"),
    [
        (np.array([0, np.nan], np.float32), 16000, "not finite"),
        (np.zeros((2, 2, 2), np.float32), 16000, "shape"),
        (np.array(["a"]), 16000, "shape"),
        (np.zeros(10, np.float32), 100, "100 Hz"),
        (np.zeros(10, np.float32), 16000.5, "Hz"),
    ],
)
def test_a_bad_chunk_is_one_line_and_the_session_goes_on(chunk, rate, match):
    session, _, _ = plain_session()
    session.push(numbered(5))
    with pytest.raises(AudioError, match=match) as problem:
        session.push(chunk, rate)
    assert "\n" not in str(problem.value)
    session.end()
    np.testing.assert_array_equal(sound(list(session)), numbered(5))


@pytest.mark.parametrize("look_ahead", [-0.1, 1.5, "0.2", float("nan")])
def test_a_look_ahead_that_cannot_be(look_ahead):
    with pytest.raises(UsageError, match="look_ahead"):
        plain_session(look_ahead=look_ahead)


def test_a_closed_session_says_so():
    session, _, _ = plain_session()
    with session:
        session.push(numbered(5))
    session.close()
    for use in (session.pull, session.interrupt, lambda: session.push(numbered(1))):
        with pytest.raises(Cancelled, match="closed"):
            use()
    assert session.queued == 0


def test_sound_after_the_end():
    session, _, _ = plain_session()
    session.end()
    with pytest.raises(UsageError, match="after its end"):
        session.push(numbered(1))
    assert session.pull() is None


@pytest.mark.slow
def test_an_hour_keeps_time_to_the_sample():
    session, speaker, clock = plain_session()
    second = numbered(25)
    frames, spoken = 0, 0
    for i in range(3600):
        session.push(second)
        for _ in range(25):
            frame = session.pull()
            assert frame.index == frames
            frames += 1
            if frame.position is not None:
                assert frame.position == pytest.approx(spoken / 25)
                spoken += 1
        speaker.drawn.clear()
        assert session.queued <= 1.1, i
    assert frames == 90000 and frames - spoken <= 1
    assert clock.now() - 1000 == pytest.approx(3600, abs=0.05)


def test_the_speaker_of_the_tests_is_a_speaker():
    speaker = PlainSpeaker()
    speaker.append(numbered(1))
    speaker.skip()
    assert (speaker.ahead, speaker.skipped) == (0, 1)
