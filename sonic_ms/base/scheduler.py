"""Euler scheduler of Stable Video Diffusion: EDM noise levels, v-prediction, continuous time. numpy only.

Source of the maths: Karras et al. 2022 (sigmas), Salimans and Ho 2022 (v-prediction). Only the published setting is
implemented: Karras sigmas, times of ln(sigma)/4, no churn, last sigma 0.
"""

from dataclasses import dataclass

import numpy as np

RHO = 7.0  # exponent of the Karras schedule


@dataclass(frozen=True)
class SchedulerConfig:
    """Range of the noise levels."""

    sigma_min: float = 0.002
    sigma_max: float = 700.0


def clean_latents(prediction, noisy, sigma):
    """Latents without their noise, as the v-prediction says: x from v = (n - sigma x) / sqrt(sigma^2 + 1).

    prediction, noisy: x + sigma n, and sigma, of shapes that broadcast; arrays or Tensors.
    """
    square = sigma * sigma + 1
    return prediction * (-sigma / square**0.5) + noisy / square


class EulerScheduler:
    """Noise levels of one run.

    sigmas (steps + 1,): largest first, ending in 0. timesteps (steps,): what the UNet is told, ln(sigma)/4.
    Computed as upstream does, in single precision where it rounds to it.
    """

    def __init__(self, config, steps):
        ramp = np.linspace(0, 1, steps)
        low, high = config.sigma_min ** (1 / RHO), config.sigma_max ** (1 / RHO)
        sigmas = (high + ramp * (low - high)) ** RHO
        self.timesteps = (0.25 * np.log(sigmas)).astype(np.float32)
        self.sigmas = np.append(sigmas, 0.0).astype(np.float32)
        self.steps = steps

    @property
    def init_noise_sigma(self):
        """Standard deviation of latents that are pure noise."""
        return float(np.sqrt(self.sigmas[0] ** 2 + 1, dtype=np.float32))

    def add_noise(self, latents, noise):
        """Latents at the first, largest noise level; both of one shape."""
        return latents + noise * self.sigmas[0]

    def scale_input(self, latents, index):
        """What the UNet sees of the latents at step `index`: unit variance."""
        return latents / np.sqrt(self.sigmas[index] ** 2 + 1)

    def step(self, prediction, latents, index):
        """Latents after step `index` (0-based) from the UNet's v-prediction; any equal shapes, float32."""
        sigma, following = np.split(self.sigmas[index : index + 2], 2)  # arrays (1,): a scalar's root is no float32
        derivative = (latents - clean_latents(prediction, latents, sigma)) / sigma
        return latents + derivative * (following - sigma)
