"""Prediction of memory and time: counts of operations, and the refusal of what cannot fit."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bench import check_preflight
from sonic_ms.base import preflight
from sonic_ms.base.check import PUBLISHED
from sonic_ms.base.configs import UNetConfig
from sonic_ms.base.denoise import DenoiseSettings
from sonic_ms.base.guidance import plan, work_of
from sonic_ms.errors import ResourceError
from tests.support.torch_reference import SonicUNet


@pytest.mark.parametrize(("channels", "layers", "frames"), [((32, 64), 1, 3), ((64, 64, 96), 2, 5)])
@pytest.mark.slow
def test_operations_are_those_that_torch_counts(channels, layers, frames):
    """torch does more: it computes contexts and time embeddings at every step, and CLIP attention with a softmax."""
    heads = tuple(range(1, len(channels) + 1))
    reference = SonicUNet(channels, heads, 24, layers, frames=frames)
    config = UNetConfig(channels, heads, 24, 16, 48, layers_per_block=layers, num_frames=frames)
    height, width = 32, 48
    inputs = (torch.randn(1, frames, 8, height, width), 1.0, torch.randn(frames, 1, 24), torch.randn(frames, 32, 24),
              torch.ones(8 * height, 8 * width), torch.ones(1, 3))  # fmt: skip
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it cannot count the fused one
        reference(*inputs)
    ratio = 2 * sum(preflight.unet_operations(config, height, width, frames)) / counter.get_total_flops()
    assert 0.8 < ratio <= 1.0, ratio


def test_operations_of_the_published_unet_are_the_known_ones():
    """Upstream needs 7.80 TFLOP at 256x256 and 33.3 at 512x512 for 25 frames, contexts of every pixel included."""
    for side, known in ((32, 7.80), (64, 33.3)):
        found = 2e-12 * sum(preflight.unet_operations(PUBLISHED["unet"], side, side, 25))
        assert 0.88 * known < found < 0.98 * known


def test_what_cannot_fit_is_refused_with_advice():
    configs = PUBLISHED
    large = preflight.Request(2048, 2048, 100, 25)
    with pytest.raises(ResourceError, match=r"2048x2048 needs about [\d.]+ GB of memory, 24.0 GB are free; try --one"):
        preflight.check_memory(configs, large, 6.3e9, available=24)
    small = preflight.Request(256, 256, 100, 25, branches=1, chunk=4)
    assert preflight.check_memory(configs, small, 6.3e9, available=24) < 24


@pytest.mark.parametrize(
    ("config", "weights", "side", "frames", "measured"),
    [
        (PUBLISHED["unet"], 5.497e9, 256, 4, 9.09),
        (UNetConfig((64, 128, 256, 256), (2, 4, 8, 8), 256, 64, 192), 0.2206e9, 256, 4, 2.66),
        (UNetConfig((64, 128, 256, 256), (2, 4, 8, 8), 256, 64, 192, layers_per_block=1), 0.1472e9, 256, 4, 2.04),
        (UNetConfig((64, 128, 256, 256), (2, 4, 8, 8), 256, 64, 192, layers_per_block=1), 0.1472e9, 384, 6, 2.74),
    ],
)
def test_memory_is_near_what_was_measured(config, weights, side, frames, measured):
    """Peak of one step alone, one branch, MindSpore 2.7.2 on a CPU; the decoder has no part in it."""
    config = replace(config, num_frames=frames)
    request = preflight.Request(side, side, frames, 1, branches=1, chunk=1)
    assert preflight.memory({"unet": config, "vae": PUBLISHED["vae"]}, request, weights) / 1e9 == pytest.approx(
        measured, rel=0.25
    )


def test_memory_of_the_decoder_is_near_what_was_measured():
    """Alone, four frames at 256x256: 2.53 GB, and it compiles far fewer blocks than the UNet."""
    live = preflight.decoder_live(PUBLISHED["vae"], preflight.Request(256, 256, 4, 1, chunk=4))
    weights = (1 + preflight.PACKED_SHARE) * 63.6e6 * 4
    assert (live + preflight.START_BYTES + weights) / 1e9 == pytest.approx(2.53, rel=0.25)


@pytest.mark.parametrize(
    ("case", "speeds", "weights", "measured"),
    [
        ("mid", (30.35, 35.66, 34.33, 19.15), 0.2365e9, (25.26, 2.81)),
        ("wide", (31.56, 39.78, 52.59, 24.65), 0.2374e9, (48.59, 4.08)),
        ("full", (57.95, 71.94, 70.85, 62.9), 5.752e9, (84.1, 8.44)),
    ],
)
def test_predictions_are_near_what_requests_took(case, speeds, weights, measured):
    """As bench/check_preflight.py recorded them; speeds in 1e9 multiplications a second, of the probe in that run."""
    configs, request = check_preflight.networks(case)
    found = preflight.estimate(configs, request, weights, [speed * 1e9 for speed in speeds])
    assert (found.seconds, found.gigabytes) == pytest.approx(measured, rel=check_preflight.BAR)


def test_time_grows_with_steps_windows_and_pixels():
    def seconds(**changes):
        fields = {"height": 256, "width": 256, "frames": 50, "steps": 10} | changes
        return preflight.estimate(PUBLISHED, preflight.Request(**fields), 6e9, [1e11] * 4).seconds

    decoding = seconds(steps=0)
    assert seconds(steps=20) - decoding == pytest.approx(2 * (seconds() - decoding))
    assert seconds(frames=100) == pytest.approx(2 * seconds())
    assert seconds(height=512, width=512) > 4 * seconds()
    assert seconds(overlap=5) > seconds()


@pytest.mark.slow
def test_a_probe_measures_every_level():
    config = UNetConfig((32, 64), (1, 2), 24, 16, 48, layers_per_block=1, num_frames=2)
    speeds = preflight.probe(config, 16, 16, frames=2)
    assert len(speeds) == 2
    assert all(1e6 < speed < 1e13 for speed in speeds), speeds


def test_slow_levels_count_by_their_work():
    config = PUBLISHED["unet"]
    work = preflight.unet_operations(config, 32, 32, 25)
    even = preflight.step_seconds(config, 32, 32, 25, [1e11] * 4)
    uneven = preflight.step_seconds(config, 32, 32, 25, [1e11, 1e11, 0.5e11, 1e11])
    assert uneven - even == pytest.approx(work[2] / 1e11)


def test_only_long_requests_are_probed(monkeypatch):
    monkeypatch.setattr(preflight, "probe", lambda *_: [1e11] * 4)
    monkeypatch.setattr(preflight, "available_gigabytes", lambda: 64)
    long, short = (preflight.Request(256, 256, frames, steps) for frames, steps in ((125, 25), (4, 1)))
    assert preflight.preflight(PUBLISHED, short, 6e9).seconds is None
    assert preflight.preflight(PUBLISHED, long, 6e9, timed=False).seconds is None
    assert preflight.preflight(PUBLISHED, long, 6e9) == preflight.estimate(PUBLISHED, long, 6e9, [1e11] * 4)


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (None, "this will take about 9.8 GB of memory"),
        (20, "this will take about 1 min and 9.8 GB of memory"),
        (6000, "this will take about 100 min and 9.8 GB of memory"),
        (9000, "this will take about 2.5 hours and 9.8 GB of memory"),
    ],
)
def test_what_a_video_will_take_in_words(seconds, line):
    assert str(preflight.Estimate(seconds, 9.84)) == line


def test_a_cache_costs_memory_and_saves_time():
    """25 frames at 512x512: three branches of 320 channels in half floats, and one window's in whole ones."""
    plain = preflight.Request(512, 512, 50, 25)
    work = work_of(plan(DenoiseSettings(feature_cache=2, guidance_reuse=2)))
    cached = preflight.Request(512, 512, 50, 25, work=work, cache_branch=0)
    features = 320 * 64 * 64
    more = preflight.memory(PUBLISHED, cached, 6.3e9) - preflight.memory(PUBLISHED, plain, 6.3e9)
    kept = features * (50 * 3 * 2 + 3 * 25 * 4)
    assert (work.whole_batches, work.shallow_batches) == (1, 1)  # all three whole, or two of them fast
    assert more == pytest.approx(kept + preflight.COMPILED_BYTES, rel=0.01)
    share = preflight.operations(PUBLISHED, cached) / preflight.operations(PUBLISHED, plain)
    assert 0.53 < share < 0.56
    speeds = (1e11,) * 4
    seconds = [preflight.estimate(PUBLISHED, one, 6.3e9, speeds).seconds for one in (plain, cached)]
    assert seconds[1] < 0.57 * seconds[0]


def test_the_fast_part_is_the_first_and_the_last_layers():
    config = UNetConfig((32, 64), (1, 2), 24, 16, 48, layers_per_block=2, num_frames=3)
    last = preflight.res_operations(64, 32, 100, 3) + preflight.transformer_operations(32, 100, 3, 3, 32)
    first = preflight.res_operations(32, 32, 100, 3) + preflight.transformer_operations(32, 100, 3, 3, 32)
    assert preflight.shallow_operations(config, 10, 10, 3, 0) == last
    assert preflight.shallow_operations(config, 10, 10, 3, 1) == first + 2 * last
