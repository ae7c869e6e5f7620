"""Samples of the training set -> clips of the length that is trained, as `diffusion.stack` takes them.

A sample is a dict: latents (T, 4, h, w) and image_latents (4, h, w), unscaled; clip_embedding (1, d) or (d,);
whisper_states (n, layers, c), 50 a second, from the first frame on; mask (1, H, W) or (H, W), the face in 0..1;
buckets (2,); fps of the frames, 12.5 or a multiple. For the lip-sync expert also audio, int16 at 16 kHz from the first
frame on, and box, the face (x1, y1, x2, y2) in pixels of the mask.
"""

import numpy as np

from sonic_ms.base.encode import BUCKET_LEAD, TOKEN_LEAD, frame_windows
from sonic_ms.errors import UsageError
from sonic_ms.train.base.diffusion import GENERATED_FPS, draw, network_inputs, stack

NEEDED = ("latents", "image_latents", "clip_embedding", "whisper_states", "mask", "buckets", "fps")
NEEDED_FOR_SYNC = ("audio", "box")


def cut(sample, first, frames, token_config, bucket_config):
    """`frames` frames of a sample at 12.5 a second, from number `first` on, with the Whisper states around each."""
    step = round(float(sample["fps"]) / GENERATED_FPS)
    latents = np.asarray(sample["latents"])[::step][first : first + frames]
    states = np.asarray(sample["whisper_states"], np.float32)
    end = first + frames
    tokens = frame_windows(states, end, token_config.seq_len, TOKEN_LEAD)[first:]
    buckets = frame_windows(states[:, -bucket_config.blocks :], end, bucket_config.seq_len, BUCKET_LEAD)[first:]
    return {
        "latents": latents,
        "image_latents": sample["image_latents"],
        "clip_embedding": np.reshape(sample["clip_embedding"], -1),
        "token_states": tokens,
        "bucket_states": buckets,
        "mask": np.reshape(sample["mask"], np.shape(sample["mask"])[-2:]),
        "buckets": sample["buckets"],
        "first": first,
        **{name: sample[name] for name in NEEDED_FOR_SYNC if name in sample},
    }


def length(sample, needed=NEEDED):
    """Frames of a sample at 12.5 a second. UsageError when it lacks one of `needed`."""
    missing = [name for name in needed if name not in sample]
    if missing:
        raise UsageError(f"a training sample lacks {', '.join(missing)}; build the data with latents and audio states")
    return -(-len(sample["latents"]) // round(float(sample["fps"]) / GENERATED_FPS))


class ClipBatches:
    """make_batch of the trainer: random clips of `samples`, a sequence of dicts, with their noise."""

    def __init__(self, samples, frames, configs, scaling, noise, sync=None):
        """configs: dict with those of unet, audio2token and audio2bucket. noise: NoiseConfig. sync: SyncWindows, which
        adds the inputs of the lip-sync expert."""
        self.samples, self.frames, self.configs = samples, frames, configs
        self.scaling, self.noise, self.sync = scaling, noise, sync
        self.needed = NEEDED + (NEEDED_FOR_SYNC if sync else ())
        if not len(samples):
            raise UsageError("the training set is empty")

    def __call__(self, rng, size):
        picked = [self.clip(rng) for _ in range(size)]
        clips = stack(picked)
        drawn = draw(rng, clips["latents"].shape, self.noise)
        arrays = network_inputs(self.configs["unet"], self.scaling, clips, drawn, self.noise)
        return arrays + self.sync(rng, picked, drawn) if self.sync else arrays

    def clip(self, rng):
        """A random window of a random sample; samples shorter than the window are passed over."""
        for _ in range(100):
            sample = self.samples[int(rng.integers(len(self.samples)))]
            free = length(sample, self.needed) - self.frames
            if free >= 0:
                first = int(rng.integers(free + 1))
                return cut(sample, first, self.frames, self.configs["audio2token"], self.configs["audio2bucket"])
        raise UsageError(f"no sample is {self.frames} frames long; take fewer frames or longer clips")
