"""The Euler scheduler against diffusers."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig

pytestmark = [pytest.mark.slow]


def distance(ours, theirs):
    """Relative L2."""
    return np.linalg.norm(ours - theirs.numpy()) / np.linalg.norm(theirs.numpy())


@pytest.mark.parametrize(("steps", "low", "high"), [(25, 0.002, 700.0), (4, 0.01, 80.0), (1, 0.002, 700.0)])
def test_a_whole_run_follows_diffusers(steps, low, high):
    theirs = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=low,
        sigma_max=high,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
    )
    theirs.set_timesteps(steps)
    ours = EulerScheduler(SchedulerConfig(low, high), steps)
    assert np.abs(ours.timesteps - theirs.timesteps.numpy()).max() <= 1e-6
    assert np.abs(ours.sigmas - theirs.sigmas.numpy()).max() <= 1e-6 * high
    assert ours.init_noise_sigma == pytest.approx(float(theirs.init_noise_sigma), rel=1e-6)
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal((2, 3, 4, 5, 6), np.float32)
    latents = ours.add_noise(start, noise)
    reference = theirs.add_noise(torch.from_numpy(start), torch.from_numpy(noise), theirs.timesteps[:1])
    assert np.allclose(latents, reference.numpy(), rtol=1e-6)
    for index, timestep in enumerate(theirs.timesteps):
        prediction = rng.standard_normal(start.shape, np.float32)
        scaled = theirs.scale_model_input(reference, timestep)
        assert distance(ours.scale_input(latents, index), scaled) <= 1e-6
        reference = theirs.step(torch.from_numpy(prediction), timestep, reference).prev_sample
        latents = ours.step(prediction, latents, index)
        assert distance(latents, reference) <= 1e-6
        assert latents.dtype == np.float32
