"""The denoising loop with stand-ins for the networks: what each of them is given, how often, and what becomes of it."""

import time

import numpy as np
import pytest

from sonic_ms.base.configs import UNetConfig
from sonic_ms.base.denoise import Conditions, Contexts, DenoiseSettings, Resume, denoise, windows
from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig
from sonic_ms.errors import UsageError
from sonic_ms.files import weights

CONFIG = UNetConfig((32, 64), (1, 2), 8, 4, 12, layers_per_block=1, num_frames=4)
CHANNELS = sum(CONFIG.attention_channels)
H, W = 4, 6
RNG = np.random.default_rng(0)


def a_clip(count, silence=1):
    return Conditions(
        image_latents=RNG.standard_normal((4, H, W), np.float32),
        buckets=RNG.uniform(10, 40, (count, 2)),
        mask=np.ones((32, 48), np.float32),
        clip_embedding=RNG.standard_normal(8).astype(np.float32),
        audio=RNG.standard_normal((count, 32, 8), np.float32),
        silence=RNG.standard_normal((silence, 32, 8), np.float32),
    )


class Network:
    """Stands for both Cells; keeps the shapes it was called with. Its prediction depends on every input."""

    def __init__(self):
        self.contexts, self.steps = [], []

    def context(self, clip, audio, sinusoids):
        self.contexts.append(len(audio))
        key, value = audio.mean(-1, keepdims=True) + np.zeros(CHANNELS), audio[:, :, :1] + np.zeros(CHANNELS)
        seen = clip.mean(-1, keepdims=True) + np.zeros(CHANNELS)
        parts = (key, value, seen, 2 * key, 2 * value, 2 * seen, sinusoids)
        return tuple(part.astype(np.float32) for part in parts)

    def unet(self, sample, time, ids, masks, *contexts):
        b, t = sample.shape[:2]
        self.steps.append(sample.shape)
        *parts, positions = contexts
        assert masks.shape == (1, H * W * 5 // 4, 1) and positions.shape == (t, CHANNELS)
        frames = sum(part.reshape(b, t, -1).mean(-1) for part in parts[:3])
        whole = sum(part.reshape(b, -1).mean(-1) for part in parts[3:]) + time.mean(-1) + ids.mean(-1)
        out = sample[:, :, :4] + 0.1 * sample[:, :, 4:] + (frames + whole[:, None])[:, :, None, None, None]
        return out.astype(np.float32)


def run(clip, settings, network=None, **more):
    network = network or Network()
    count = len(clip.audio)
    noise = np.random.default_rng(1).standard_normal((count, 4, H, W), np.float32)
    scheduler = EulerScheduler(SchedulerConfig(0.002, 20.0), settings.steps)
    return denoise(network.unet, network.context, CONFIG, clip, noise, scheduler, settings, 0.18215, **more)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 30])
@pytest.mark.parametrize(("length", "overlap"), [(4, 0), (4, 1), (4, 3), (25, 6)])
@pytest.mark.parametrize("shift", [0, 7, 168])
def test_windows_cover_every_frame(count, length, overlap, shift):
    found = windows(count, length, overlap, shift)
    assert len(found) == -(-count // (length - overlap))
    assert all(len(frames) == length for frames in found)
    assert set(np.concatenate(found)) == set(range(count))


def test_windows_shift_and_wrap():
    assert [list(frames) for frames in windows(6, 4, 0, 3)] == [[3, 4, 5, 0], [1, 2, 3, 4]]
    assert [list(frames) for frames in windows(3, 4, 0, 0)] == [[0, 1, 2, 0]]


def test_contexts_are_computed_once_a_clip():
    """Neither once a step nor once a window, however many there are."""
    network = Network()
    run(a_clip(60), DenoiseSettings(steps=5, window=4, overlap=1), network)
    assert network.contexts == [4] * (1 + 1 + 15)  # two constant branches, then 60 frames, in batches of one size
    assert len(network.steps) == 5 * 20


def test_contexts_of_frames_are_those_of_their_own_tokens():
    clip, network = a_clip(30), Network()
    contexts = Contexts(network.context, CONFIG, clip, 4)
    frames = np.array([29, 0, 1, 2])
    unseen, seen, heard = contexts.branches(frames)
    expected = network.context(np.tile(clip.clip_embedding, (4, 1, 1)), clip.audio[frames], np.zeros((4, CHANNELS)))
    for index in range(3):
        assert np.allclose(heard[index], expected[index], atol=1e-6)
        assert np.allclose(heard[3 + index], expected[3 + index].mean(0, keepdims=True), atol=1e-6)
    assert not unseen[2].any() and seen[2].any()  # CLIP value without and with the image
    assert np.array_equal(unseen[0], seen[0]) and not np.allclose(seen[0], heard[0])


def test_silence_may_differ_from_frame_to_frame():
    clip = a_clip(6, silence=6)
    contexts = Contexts(Network().context, CONFIG, clip, 4)
    first, second = (contexts.branches(np.arange(4) + start)[0][0] for start in (0, 2))
    assert np.array_equal(first[2:], second[:2]) and not np.allclose(first[:2], first[2:])


def test_branches_one_after_another_give_the_same():
    clip, together, apart = a_clip(9), Network(), Network()
    settings = {"steps": 3, "window": 4, "overlap": 1, "shift_offset": 3}
    a = run(clip, DenoiseSettings(**settings), together)
    b = run(clip, DenoiseSettings(**settings, batch_branches=False), apart)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert {shape[0] for shape in together.steps} == {3} and {shape[0] for shape in apart.steps} == {1}


def test_guidance_strengths_are_interpolated_over_the_steps():
    settings = DenoiseSettings(steps=5, image_guidance=(1.0, 3.0), audio_guidance=(7.5, 7.5))
    assert [settings.guidance(index) for index in (0, 2, 4)] == [(1.0, 7.5), (2.0, 7.5), (3.0, 7.5)]


@pytest.mark.parametrize(
    ("image", "audio", "computed"), [(1, 1, 1), (1, 4, 2), (3, 3, 2), (2, 0, 2), (0, 0, 1), (2, 7.5, 3)]
)
@pytest.mark.parametrize("together", [True, False])
def test_a_branch_of_weight_0_is_not_computed(image, audio, computed, together):
    clip, network, all_three = a_clip(4), Network(), Network()
    settings = {"steps": 2, "window": 4, "image_guidance": (image,) * 2, "audio_guidance": (audio,) * 2}
    found = run(clip, DenoiseSettings(**settings, batch_branches=together), network)
    expected = run(clip, DenoiseSettings(**settings, fixed_batch=True), all_three)
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert [shape[0] for shape in network.steps] == ([computed] * 2 if together else [1] * 2 * computed)
    assert [shape[0] for shape in all_three.steps] == [3, 3]


def test_scales_multiply_the_buckets_only():
    clip, seen = a_clip(4), []

    class Listening(Network):
        def unet(self, sample, time, ids, masks, *contexts):
            seen.append(ids[0])
            return super().unet(sample, time, ids, masks, *contexts)

    run(clip, DenoiseSettings(steps=1, window=4), Listening())
    run(clip, DenoiseSettings(steps=1, window=4, dynamic_scale=2.0), Listening())
    run(clip, DenoiseSettings(steps=1, window=4, dynamic_scale=2.0, motion_scale=0.5), Listening())
    values = np.array([12.5, *clip.buckets.mean(0)])
    for ids, factors in zip(seen, ((1, 1, 1), (1, 2, 2), (1, 1, 2)), strict=True):
        measured = np.arctan2(ids.reshape(3, 4)[:, 2], ids.reshape(3, 4)[:, 0])  # fastest sinusoid: the value itself
        expected = values * factors
        assert np.allclose(np.exp(1j * measured), np.exp(1j * expected), atol=1e-3)


class Killed(Exception):
    """Stands for a run that is interrupted."""


def kill_after(step):
    def progress(done, _):
        if done == step:
            raise Killed

    return progress


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    clip, state = a_clip(9), tmp_path / "state"
    settings = DenoiseSettings(steps=5, window=4, overlap=1)
    whole = run(clip, settings)
    with pytest.raises(Killed):
        run(clip, settings, state=state, progress=kill_after(3))
    network = Network()
    again = run(clip, settings, network, state=state)
    assert np.array_equal(again, whole)
    assert len(network.steps) == 2 * 3  # two steps of three windows were left
    assert not state.exists()


@pytest.mark.parametrize("change", ["audio", "settings", "damaged"])
def test_the_state_of_another_run_is_not_used(tmp_path, change):
    clip, state = a_clip(9), tmp_path / "state"
    settings = DenoiseSettings(steps=4, window=4)
    with pytest.raises(Killed):
        run(clip, settings, state=state, progress=kill_after(2))
    if change == "audio":
        clip.audio[0, 0, 0] += 1
    elif change == "settings":
        settings = DenoiseSettings(steps=4, window=4, dynamic_scale=1.5)
    else:
        state.write_bytes(state.read_bytes()[:-200])
    network = Network()
    assert np.array_equal(run(clip, settings, network, state=state), run(clip, settings))
    assert len(network.steps) == 4 * 3


def test_progress_is_told_every_step():
    told = []
    run(a_clip(4), DenoiseSettings(steps=3, window=4), progress=lambda *step: told.append(step))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("wrong", [{"overlap": 25}, {"overlap": -1}, {"steps": 0}, {"window": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        DenoiseSettings(**wrong)


def test_a_state_of_another_shape_is_not_used(tmp_path):
    """Whoever knows the digest can write any latents under it."""
    latents = np.ones((5, 4, 6, 6), np.float32)
    Resume(tmp_path / "state", "digest", latents.shape, 3).save(2, latents)
    steps, kept = Resume(tmp_path / "state", "digest", latents.shape, 3).load()
    assert steps == 2 and np.array_equal(kept, latents) and kept.dtype == np.float32
    for digest, shape, steps in (("digest", (4, 4, 6, 6), 3), ("digest", (5, 4, 6, 7), 3), ("digest", latents.shape, 1),
                                 ("other", latents.shape, 3)):  # fmt: skip
        assert Resume(tmp_path / "state", digest, shape, steps).load() == (0, None)


def test_a_long_video_has_more_bytes_than_one_tensor_may(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_TENSOR_BYTES", 1000)
    latents = np.ones((5, 4, 6, 6), np.float32)
    Resume(tmp_path / "state", "", latents.shape, 3).save(1, latents)
    assert Resume(tmp_path / "state", "", latents.shape, 3).load()[0] == 1


@pytest.mark.parametrize("overlap", [0, 2])
def test_windows_computed_at_once_give_the_same_bytes(overlap):
    """Threads that end out of order; windows that overlap are added in their order all the same."""

    class Unsteady(Network):
        def unet(self, sample, *rest):
            time.sleep(0.02 * (len(self.steps) % 3 == 0))
            return super().unet(sample, *rest)

    clip, settings = a_clip(11), DenoiseSettings(steps=3, window=4, overlap=overlap, shift_offset=3)
    alone, together = run(clip, settings), Unsteady()
    assert np.array_equal(run(clip, settings, together, lanes=3), alone)
    assert len(together.steps) == 3 * len(windows(11, 4, overlap, 0))


def test_what_a_window_keeps_for_another_is_not_spread():
    with pytest.raises(UsageError, match="guidance_reuse 2 keep"):
        run(a_clip(5), DenoiseSettings(steps=2, window=4, guidance_reuse=2), lanes=2)
