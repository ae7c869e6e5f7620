"""What a batch of sonic-base draws, and what the networks get of it; the loss itself is compared with PyTorch by
bench/check_train_step.py."""

import numpy as np
import pytest

from sonic_ms.base.check import SMALL
from sonic_ms.train.base.diffusion import Draw, NoiseConfig, draw, network_inputs

pytestmark = [pytest.mark.slow]


def test_what_is_dropped_how_often_and_how_noisy():
    config, count = NoiseConfig(), 40_000
    drawn = draw(np.random.default_rng(0), (count, 1, 1, 1, 1), config)
    audio, image = drawn.keep_audio == 0, drawn.keep_image == 0
    for share in (audio & ~image, image & ~audio, audio & image):
        assert share.mean() == pytest.approx(0.05, abs=0.005)
    assert np.log(drawn.sigma).mean() == pytest.approx(0.7, abs=0.03)
    assert np.log(drawn.sigma).std() == pytest.approx(1.6, abs=0.03)
    assert 0.9 <= drawn.bucket_factor.min() < 0.91 and 1.09 < drawn.bucket_factor.max() <= 1.1
    assert np.log(drawn.bucket_factor).mean() == pytest.approx(np.log(0.9 * 1.1) / 2, abs=0.001)


def test_a_dropped_condition_is_what_inference_gives_without_it():
    b, t, h, w, d = 3, 2, 4, 6, 64
    rng = np.random.default_rng(1)
    clips = {
        "latents": rng.standard_normal((b, t, 4, h, w)),
        "image_latents": rng.standard_normal((b, 4, h, w)),
        "clip_embedding": rng.standard_normal((b, d)),
        "token_states": rng.standard_normal((b, t, 10, 3, 64)),
        "bucket_states": rng.standard_normal((b, t, 50, 1, 64)),
        "mask": np.ones((b, 8 * h, 8 * w), np.float32),
        "buckets": np.array([[8.0, 24.0]] * b),
    }
    kept = {"keep_audio": np.float32([0, 1, 1]), "keep_image": np.float32([1, 0, 1])}
    noise = rng.standard_normal((b, t, 4, h, w))
    drawn = Draw(noise, np.full(b, 2.0), **kept, bucket_factor=np.float32([1.0, 1.1, 1.0]))
    sample, _, ids, _, seen, states, _, weight, _, bucket_seen, target = network_inputs(
        SMALL["unet"], 1.0, clips, drawn, NoiseConfig(face_weight=3.0)
    )
    states, seen = states.reshape(b, t, -1), seen.reshape(b, t, -1)
    assert not states[0].any() and states[1].any() and states[2].any()
    assert not sample[1, :, 4:].any() and sample[0, :, 4:].any() and sample[2, :, 4:].any()
    assert not seen[1].any() and seen[0].any()
    assert bucket_seen.reshape(b, t, -1)[1].any()  # the buckets' own loss always sees the portrait
    assert (ids[0] == ids[2]).all() and (ids[1] != ids[0]).any()  # scaled buckets for the UNet
    assert (target == [[-0.5, 0.5]]).all()  # measured ones for audio2bucket
    assert weight == pytest.approx(np.full(weight.shape, 4.0), abs=1e-5)
