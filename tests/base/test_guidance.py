"""What the steps compute and keep: branches, intervals, reuse, the cache of features, on stand-ins and a tiny UNet."""

import numpy as np
import pytest

from sonic_ms.base.denoise import DenoiseSettings
from sonic_ms.base.guidance import HEARD, NOTHING, SEEN, Kept, plan, work_of
from sonic_ms.errors import UsageError
from tests.base.test_denoise import CONFIG, H, Killed, Network, W, a_clip, kill_after, run

ALL = (NOTHING, SEEN, HEARD)


class Cached(Network):
    """A network whose deep part is a feature of its own: half of the prediction comes from the sample alone."""

    def __init__(self):
        super().__init__()
        self.whole, self.fast = [], []

    def deep_part(self, inputs):
        sample, _, _, _, *contexts = inputs
        value = sample.mean((2, 3, 4)) + contexts[0].reshape(*sample.shape[:2], -1).mean(-1)
        return np.repeat(value.reshape(-1, 1, 1, 1), 32, 1).astype(np.float32) * np.ones((1, 1, H, W), np.float32)

    def with_features(self, sample, features):
        b, t = sample.shape[:2]
        out = 0.3 * sample[:, :, :4] + 0.05 * sample[:, :, 4:]
        return (out + features.reshape(b, t, 32, H, W)[:, :, :4]).astype(np.float32)

    def unet(self, *inputs):
        self.steps.append(inputs[0].shape)
        return self.with_features(inputs[0], self.deep_part(inputs))

    def deep(self, *inputs):
        self.whole.append(len(inputs[0]))
        features = self.deep_part(inputs)
        return self.with_features(inputs[0], features), features

    def shallow(self, *inputs):
        self.fast.append(len(inputs[0]))
        return self.with_features(inputs[0], inputs[-1])


def cached(clip, settings, network=None, **more):
    network = network or Cached()
    return run(clip, settings, network, deep=network.deep, shallow=network.shallow, **more)


def test_by_default_every_step_computes_every_branch_whole():
    assert [(step.deep, step.shallow, step.difference) for step in plan(DenoiseSettings(steps=4))] == [
        (ALL, (), False)
    ] * 4


def test_outside_its_interval_a_strength_is_1():
    settings = DenoiseSettings(steps=10, image_interval=(0.2, 0.6), audio_interval=(0.0, 0.8))
    strengths = [settings.guidance(index) for index in range(10)]
    assert [image for image, _ in strengths] == [1, 1, 2, 2, 2, 2, 1, 1, 1, 1]
    assert [audio for _, audio in strengths] == [7.5] * 8 + [1, 1]
    assert [step.deep for step in plan(settings)] == [(SEEN, HEARD)] * 2 + [ALL] * 4 + [(SEEN, HEARD)] * 2 + [
        (HEARD,)
    ] * 2


def test_the_whole_interval_is_todays_result():
    clip = a_clip(9)
    settings = {"steps": 3, "window": 4}
    whole = DenoiseSettings(**settings, image_interval=(0.0, 1.0), audio_interval=(0.0, 1.0), guidance_reuse=1)
    assert np.array_equal(run(clip, whole), run(clip, DenoiseSettings(**settings)))


def test_an_interval_gives_what_strength_1_gives_there():
    """Two steps, the second outside: as a run whose strength falls from 2 to 1."""
    clip, network = a_clip(5), Network()
    inside = DenoiseSettings(steps=2, window=4, image_interval=(0.0, 0.5))
    found = run(clip, inside, network)
    expected = run(clip, DenoiseSettings(steps=2, window=4, image_guidance=(2.0, 1.0)))
    assert np.array_equal(found, expected)
    assert [shape[0] for shape in network.steps] == [3, 3, 2, 2]


def test_the_effect_of_the_photo_is_computed_every_few_steps():
    steps = plan(DenoiseSettings(steps=7, guidance_reuse=3))
    assert [step.deep for step in steps] == [ALL if index % 3 == 0 else (SEEN, HEARD) for index in range(7)]
    assert [step.difference for step in steps] == [index % 3 == 0 for index in range(7)]


def test_a_reused_difference_that_does_not_change_is_exact():
    """The stand-in adds a tenth of the photo's latents: seen - nothing is the same at every step, window and frame but
    for what depends on the frame, which must be found under its own number whatever the windows are."""

    class Linear(Network):
        def unet(self, sample, time, ids, masks, *contexts):
            self.steps.append(sample.shape)
            b, t = sample.shape[:2]
            own = contexts[0].reshape(b, t, -1).mean(-1)  # of the frame: the sound
            seen = contexts[2].reshape(b, t, -1).mean(-1)
            return (sample[:, :, :4] + (own + 3 * seen)[:, :, None, None, None] * sample[:, :, 4:]).astype(np.float32)

    clip = a_clip(9, silence=9)
    for settings in (
        {"steps": 5, "window": 4, "shift_offset": 3},
        {"steps": 5, "window": 4, "shift_offset": 3, "overlap": 2},
        {"steps": 4, "window": 12},
        {"steps": 4, "window": 4, "batch_branches": False},
    ):
        network = Linear()
        found = run(clip, DenoiseSettings(**settings, guidance_reuse=2), network)
        assert np.allclose(found, run(clip, DenoiseSettings(**settings), Linear()), rtol=1e-4, atol=1e-5)
        sizes = {shape[0] for shape in network.steps}
        assert sizes == ({1} if settings.get("batch_branches") is False else {2, 3})


def test_reuse_needs_all_three_branches():
    """Where a branch has weight 0 anyway, nothing would be saved by it."""
    for settings in (
        DenoiseSettings(steps=3, guidance_reuse=2, image_guidance=(1.0, 1.0)),
        DenoiseSettings(steps=3, guidance_reuse=2, image_guidance=(3.0, 3.0), audio_guidance=(3.0, 3.0)),
        DenoiseSettings(steps=3, guidance_reuse=2, fixed_batch=True),
    ):
        assert not any(step.difference or step.weights[3] for step in plan(settings))


def test_strength_1_of_the_sound_and_a_kept_difference_need_one_branch():
    steps = plan(DenoiseSettings(steps=2, guidance_reuse=2, audio_guidance=(1.0, 1.0)))
    assert [step.deep for step in steps] == [ALL, (HEARD,)] and steps[1].weights[3] == 1


def test_a_cache_of_one_step_is_no_cache():
    clip, network = a_clip(9), Cached()
    found = cached(clip, DenoiseSettings(steps=4, window=4, feature_cache=1), network)
    assert network.whole == network.fast == []
    assert np.array_equal(found, cached(clip, DenoiseSettings(steps=4, window=4)))


@pytest.mark.parametrize("together", [True, False])
def test_the_whole_network_runs_every_few_steps(together):
    clip, network = a_clip(9), Cached()
    settings = DenoiseSettings(steps=5, window=4, feature_cache=3, batch_branches=together)
    cached(clip, settings, network)
    calls = 3 if together else 9  # windows, or windows and branches, of a step
    assert (len(network.whole), len(network.fast), network.steps) == (2 * calls, 3 * calls, [])
    work = work_of(plan(settings), together)
    assert (work.whole, work.shallow, work.whole_batches, work.shallow_batches) == (6, 9, 1, 1)


@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (9, {"shift_offset": 7}),  # windows shift, and the last one wraps
        (9, {"shift_offset": 3, "overlap": 2}),
        (3, {"shift_offset": 7}),  # a clip shorter than a window repeats in it
        (9, {"shift_offset": 7, "batch_branches": False}),
    ],
)
def test_features_are_kept_by_frame(count, settings):
    """Features that depend on the frame and not on the step must make no difference, wherever the windows are."""

    class Constant(Cached):
        def deep_part(self, inputs):
            value = inputs[4].mean((1, 2))  # keys of the frame's sound
            return value.reshape(-1, 1, 1, 1).astype(np.float32) * np.ones((1, 32, H, W), np.float32)

    clip = a_clip(count, silence=count)
    cached_settings = DenoiseSettings(steps=5, window=4, feature_cache=3, **settings)
    found = cached(clip, cached_settings, Constant())
    expected = cached(clip, DenoiseSettings(steps=5, window=4, **settings), Constant())
    assert np.allclose(found, expected, rtol=2e-3, atol=2e-3)  # they are held in float16
    assert not np.allclose(found[0], found[1], atol=0.05)


def test_a_branch_that_has_no_features_yet_is_computed_whole():
    """With reuse, `nothing` rests at a step at which the others are computed whole."""
    steps = plan(DenoiseSettings(steps=7, feature_cache=3, guidance_reuse=2))
    assert [(step.deep, step.shallow) for step in steps] == [
        (ALL, ()),
        ((), (SEEN, HEARD)),
        ((), ALL),
        ((SEEN, HEARD), ()),
        ((NOTHING,), (SEEN, HEARD)),
        ((), (SEEN, HEARD)),
        ((SEEN, HEARD), (NOTHING,)),
    ]


def test_where_windows_overlap_the_mean_is_kept():
    kept = Kept()
    kept.begin("a")
    kept.write("a", [0, 1, 0], np.float32([[1], [5], [3]]), np.float32, 3)
    kept.write("a", [1, 2], np.float32([[7], [9]]), np.float32, 3)
    assert kept.read("a", [2, 1, 0]).tolist() == [[9], [6], [2]]
    kept.begin("a")
    kept.write("a", [0], np.float32([[8]]), np.float32, 3)
    assert kept.read("a", [0, 1]).tolist() == [[8], [6]]


def test_a_resumed_run_begins_with_a_whole_step(tmp_path):
    clip, state = a_clip(9), tmp_path / "state"
    settings = DenoiseSettings(steps=5, window=4, feature_cache=4, guidance_reuse=3)
    with pytest.raises(Killed):
        cached(clip, settings, state=state, progress=kill_after(2))
    network = Cached()
    found = cached(clip, settings, network, state=state)
    assert network.whole == [3] * 3 and network.fast == [2] * 6
    assert found.shape == (9, 4, H, W) and np.isfinite(found).all()


def test_impossible_steps_are_refused():
    for wrong in ({"feature_cache": 0}, {"guidance_reuse": 0}):
        with pytest.raises(UsageError, match="at least 1"):
            DenoiseSettings(**wrong)


def test_channels_of_the_features():
    assert [CONFIG.feature_channels(branch) for branch in (0, 1)] == [32, 64]  # one layer a level: all of the last one
