"""The training objective of sonic-base: EDM v-prediction, as Stable Video Diffusion was trained (Karras et al. 2022).

With latents x, noise n and level s, the UNet sees (x + s n) / sqrt(s^2 + 1) and the scheduler's time ln(s) / 4, and
has to give v = (n - s x) / sqrt(s^2 + 1). The squared error of v is the error of the denoised latents weighted by
(s^2 + 1) / s^2, EDM's weight for a v-prediction; written this way it has no difference of large numbers.
"""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from sonic_ms.base.encode import BUCKET_OFFSET, BUCKET_SCALE
from sonic_ms.files.config import require
from sonic_ms.nn.host import frame_sinusoids, mask_tokens, time_sinusoids

GENERATED_FPS = 12.5  # of the frames the UNet makes


@dataclass(frozen=True)
class NoiseConfig:
    """Noise levels are lognormal: ln(sigma) ~ N(log_mean, log_std); defaults are those of SVD's fine-tuning.

    drop_audio, drop_image, drop_both: share of clips without that condition, for guidance. bucket_scale: range of a
    random factor on the motion buckets, drawn evenly in the logarithm, so that dynamic_scale is not foreign to the
    network. face_weight: the loss inside the face mask counts 1 + face_weight times.
    """

    log_mean: float = 0.7
    log_std: float = 1.6
    drop_audio: float = 0.05
    drop_image: float = 0.05
    drop_both: float = 0.05
    bucket_scale: tuple[float, float] = (0.9, 1.1)
    face_weight: float = 1.0

    def __post_init__(self):
        low, high = self.bucket_scale
        checks = [
            ("log_std", self.log_std > 0, "above 0"),
            ("bucket_scale", 0 < low <= high, "two positive values, the smaller one first"),
            ("face_weight", self.face_weight >= 0, "0 or more"),
        ]
        drops = ("drop_audio", "drop_image", "drop_both")
        checks += [(name, 0 <= getattr(self, name) <= 1, "0 to 1") for name in drops]
        checks.append(
            ("drop_both", sum(getattr(self, name) for name in drops) <= 1, "all three to be 1 at most together")
        )
        require(self, checks, "noise: ")


@dataclass(frozen=True)
class Draw:
    """What is random about a batch of b clips of t frames, so that a reference can be given the same.

    noise (b, t, 4, h, w); sigma, bucket_factor (b,); keep_audio, keep_image (b,) of 0 or 1.
    """

    noise: np.ndarray
    sigma: np.ndarray
    keep_audio: np.ndarray
    keep_image: np.ndarray
    bucket_factor: np.ndarray


def draw(rng, shape, config):
    """A Draw for latents of `shape` (b, t, 4, h, w)."""
    b = shape[0]
    sigma = np.exp(rng.normal(config.log_mean, config.log_std, b)).astype(np.float32)
    fate = rng.random(b)
    without_audio = fate < config.drop_audio
    without_image = (fate >= config.drop_audio) & (fate < config.drop_audio + config.drop_image)
    without_both = (fate >= 1 - config.drop_both) & ~without_audio & ~without_image
    return Draw(
        noise=rng.standard_normal(shape, np.float32),
        sigma=sigma,
        keep_audio=(~(without_audio | without_both)).astype(np.float32),
        keep_image=(~(without_image | without_both)).astype(np.float32),
        bucket_factor=np.exp(rng.uniform(*np.log(config.bucket_scale), b)).astype(np.float32),
    )


def stack(samples):
    """Clips (dicts, see train/data) -> one dict of arrays with the clips along the first axis."""
    names = ("latents", "image_latents", "clip_embedding", "token_states", "bucket_states", "mask", "buckets")
    return {name: np.stack([np.asarray(sample[name], np.float32) for sample in samples]) for name in names}


def network_inputs(config, scaling, clips, drawn, noise_config):
    """Arrays that `SonicLoss` takes, from stacked clips and their Draw.

    config: UNetConfig. scaling: the VAE's scaling factor. clips: latents (b, t, 4, h, w) and image_latents
    (b, 4, h, w), both unscaled; clip_embedding (b, d); token_states (b, t, 10, 5, 384) and bucket_states
    (b, t, 50, 1, 384), Whisper's states around each frame; mask (b, h', w') face mask in 0..1; buckets (b, 2).
    """
    latents = scaling * clips["latents"]
    b, t, _, height, width = latents.shape
    sigma = drawn.sigma.reshape(b, 1, 1, 1, 1)
    norm = np.sqrt(sigma**2 + 1)
    noisy = (latents + sigma * drawn.noise) / norm
    target = (drawn.noise - sigma * latents) / norm
    image = clips["image_latents"] * drawn.keep_image.reshape(b, 1, 1, 1)
    image = np.repeat(image[:, None], t, 1)
    buckets = clips["buckets"] * drawn.bucket_factor[:, None]
    ids = np.concatenate([np.full((b, 1), GENERATED_FPS), buckets], axis=1)
    time, added = time_sinusoids(config, 0.25 * np.log(drawn.sigma), ids)
    masks = np.concatenate([mask_tokens(config, mask, height, width) for mask in clips["mask"]])  # (b, tokens, 1)
    tokens = height * width  # the largest scale comes first
    weight = 1 + noise_config.face_weight * masks[:, :tokens].reshape(b, 1, 1, height, width)
    embedding = clips["clip_embedding"]
    seen = np.repeat((embedding * drawn.keep_image[:, None])[:, None], t, 0)  # (b*t, 1, d)
    states = clips["token_states"] * drawn.keep_audio.reshape(b, 1, 1, 1, 1)
    arrays = (
        np.concatenate([noisy, image], axis=2),
        time,
        added,
        np.repeat(masks, t, 0),
        seen,
        states.reshape(b * t, *states.shape[2:]),
        target,
        weight,
        clips["bucket_states"].reshape(b * t, *clips["bucket_states"].shape[2:]),
        np.repeat(embedding, t, 0),
        np.repeat((clips["buckets"] - BUCKET_OFFSET) / BUCKET_SCALE, t, 0),
    )
    return tuple(np.ascontiguousarray(array, np.float32) for array in arrays)


class SonicLoss(nn.Cell):
    """Loss of one batch: weighted squared error of v, and the squared error of the predicted motion buckets.

    The networks are those that inference runs: audio2token, both Cells of the UNet, audio2bucket. Contexts are
    computed inside, so that gradients reach the audio keys and values and the adapter. Networks may be float16; both
    errors are taken in float32. frames: of every clip.
    """

    def __init__(self, config, unet, audio2token, audio2bucket, frames, bucket_weight):
        super().__init__()
        self.unet, self.audio2token, self.audio2bucket = unet, audio2token, audio2bucket
        self.frames, self.bucket_weight = frames, bucket_weight
        self.sinusoids = Tensor(frame_sinusoids(config, frames))

    def construct(
        self, sample, time, ids, masks, seen, states, target, weight, bucket_states, bucket_seen, bucket_target
    ):
        predicted = self.predict(sample, time, ids, masks, seen, states)
        return self.errors(predicted, target, weight, bucket_states, bucket_seen, bucket_target)

    def predict(self, sample, time, ids, masks, seen, states):
        """The UNet's v (b, t, 4, h, w), float32."""
        width = self.audio2token.proj1.weight.dtype
        audio = self.audio2token(ops.cast(states, width))
        *spatial, temporal_key, temporal_value, temporal_clip, positions = self.unet.context(
            ops.cast(seen, width), audio, ops.cast(self.sinusoids, width)
        )
        predicted = self.unet.denoiser(
            ops.cast(sample, width),
            ops.cast(time, width),
            ops.cast(ids, width),
            ops.cast(masks, width),
            *spatial,
            self.clip_mean(temporal_key),
            self.clip_mean(temporal_value),
            self.clip_mean(temporal_clip),
            positions,
        )
        return ops.cast(predicted, ms.float32)

    def errors(self, predicted, target, weight, bucket_states, bucket_seen, bucket_target):
        """The loss of a v that was predicted, and of the buckets."""
        width = self.audio2bucket.proj1.weight.dtype
        error = predicted - target
        loss = ops.reduce_mean(weight * error * error)
        if self.bucket_weight > 0:
            buckets = self.audio2bucket(ops.cast(bucket_states, width), ops.cast(bucket_seen, width))
            error = ops.cast(buckets, ms.float32) - bucket_target
            loss = loss + self.bucket_weight * ops.reduce_mean(error * error)
        return loss

    def clip_mean(self, part):
        """Context of every frame (b*t, n, C) -> its mean over each clip (b, n, C), which all its frames share."""
        n, tokens, channels = part.shape
        part = ops.reshape(part, (n // self.frames, self.frames, tokens * channels))
        return ops.reshape(ops.ReduceMean()(part, 1), (n // self.frames, tokens, channels))
