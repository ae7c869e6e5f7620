"""The denoising loop of sonic-base: windows that shift from step to step, guidance of three branches. numpy.

Every step covers all frames with windows of the UNet's length. A window that runs past the end goes on with the first
frames, and a clip shorter than a window repeats inside it: indices are modulo the number of frames. The windows start
elsewhere at each step, so that their seams never stay in one place; where windows overlap, their results are averaged.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.base.guidance import Guided, plan
from sonic_ms.errors import InputMissingError, UsageError, WeightsError
from sonic_ms.files.weights import TensorFile, write_tensors
from sonic_ms.nn.host import frame_sinusoids, mask_tokens


@dataclass(frozen=True)
class DenoiseSettings:
    """Parameters of the loop; the defaults are upstream's.

    image_guidance, audio_guidance: strength at the first and at the last step, linear between. overlap: frames two
    neighbouring windows share. shift_offset: frames by which the windows move from step to step. dynamic_scale: factor
    on both motion buckets; motion_scale: on that of the head alone. fps: generated frames a second, as the UNet is
    told. batch_branches: run the guidance branches as one batch; False needs a third of the memory for activations.
    fixed_batch: the UNet takes all three at once and nothing else, as a graph that was exported so does; otherwise a
    branch whose weight is 0 is not computed. image_interval, audio_interval: first and last share of the steps, 0 to 1,
    between which each strength counts; elsewhere it is 1. guidance_reuse: steps for which seen - nothing is used before
    it is computed again. feature_cache: steps for which the UNet's deep features are, cache_branch: which of them, see
    unet.FeatureUNet. See guidance.py.
    """

    steps: int = 25
    window: int = 25
    overlap: int = 0
    shift_offset: int = 7
    image_guidance: tuple = (2.0, 2.0)
    audio_guidance: tuple = (7.5, 7.5)
    dynamic_scale: float = 1.0
    motion_scale: float = 1.0
    fps: float = 12.5
    batch_branches: bool = True
    fixed_batch: bool = False
    image_interval: tuple = (0.0, 1.0)
    audio_interval: tuple = (0.0, 1.0)
    guidance_reuse: int = 1
    feature_cache: int = 1
    cache_branch: int = 0

    def __post_init__(self):
        if self.steps < 1 or self.window < 1:
            raise UsageError(f"steps {self.steps} and window {self.window} must be at least 1")
        if not 0 <= self.overlap < self.window:
            raise UsageError(f"overlap {self.overlap} must be from 0 to {self.window - 1}, one less than the window")
        if self.guidance_reuse < 1 or self.feature_cache < 1:
            reuse, cache = self.guidance_reuse, self.feature_cache
            raise UsageError(f"guidance_reuse {reuse} and feature_cache {cache} must be at least 1")

    def guidance(self, index):
        """(image, audio) strength at step `index`; 1 outside of its interval."""
        share, middle = index / max(self.steps - 1, 1), (index + 0.5) / self.steps
        strengths = []
        for (first, last), (start, end) in (
            (self.image_guidance, self.image_interval),
            (self.audio_guidance, self.audio_interval),
        ):
            inside = start <= middle <= end
            strengths.append(np.float32(first + (last - first) * share if inside else 1))
        return tuple(strengths)


@dataclass(frozen=True)
class Conditions:
    """Everything the loop knows about a clip of n frames whose latents have h x w pixels.

    image_latents (4, h, w): encoder mean, unscaled. buckets (n, 2): translation and expression. mask (H, W): face in
    0..1. clip_embedding (d,). audio (n, 32, d): audio tokens of every frame. silence (n, 32, d) or (1, 32, d): the
    same without sound; one row when all frames are alike, as they are in practice. source: fingerprint of what the
    arrays were computed from, if known: networks differ in the last bit from process to process.
    """

    image_latents: np.ndarray
    buckets: np.ndarray
    mask: np.ndarray
    clip_embedding: np.ndarray
    audio: np.ndarray
    silence: np.ndarray
    source: str = ""

    def digest(self, *more):
        """Fingerprint of the inputs, for resuming: the same clip and the same `more` give the same text."""
        total = hashlib.sha256(repr(more).encode())
        if self.source:
            total.update(self.source.encode())
            return total.hexdigest()
        for values in (value for name, value in vars(self).items() if name != "source"):
            total.update(repr(values.shape).encode() + np.ascontiguousarray(values, np.float32).tobytes())
        return total.hexdigest()


def windows(count, length, overlap, shift):
    """Frame indices of every window of one step: list of (length,) arrays that together hold all of 0..count-1."""
    return [np.arange(start - shift, start - shift + length) % count for start in range(0, count, length - overlap)]


class Contexts:
    """Keys and values of every frame, computed once a clip; `branches` gathers those of a window.

    run(clip, audio, sinusoids) is the context Cell as a function of arrays. Frames go through it a window's number at
    a time, so that one graph is compiled.
    """

    def __init__(self, run, config, clip, window):
        self._run, self._sinusoids, self._batch = run, frame_sinusoids(config, window), window
        seen = clip.clip_embedding.astype(np.float32)
        self._branches = [
            self._project(np.zeros_like(seen), clip.silence),
            self._project(seen, clip.silence),
            self._project(seen, clip.audio),
        ]

    def _project(self, embedding, tokens):
        """Contexts of m frames: six arrays (m, 32 | 1, C). The last batch repeats its last frame."""
        count, batch = len(tokens), self._batch
        clip = np.tile(embedding, (batch, 1, 1))  # (batch, 1, d)
        parts = []
        for start in range(0, count, batch):
            frames = np.minimum(np.arange(start, start + batch), count - 1)
            *context, self.positions = self._run(clip, tokens[frames].astype(np.float32), self._sinusoids)
            parts.append([part[: count - start] for part in context])
        return [np.concatenate(part) for part in zip(*parts)]

    def branches(self, frames):
        """Contexts for a window of frame indices: no image and no audio, image only, image and audio.

        Each is what the UNet takes after the masks, without `positions`, for b = 1. The temporal context is the mean
        over the window: the mean of the frames' projections is the projection of their mean.
        """
        out = []
        for branch in self._branches:
            parts = [part[frames if len(part) > 1 else np.zeros_like(frames)] for part in branch]
            out.append(parts[:3] + [part.mean(0, keepdims=True) for part in parts[3:]])
        return out


def denoise(
    unet, context, config, clip, noise, scheduler, settings, scaling, progress=None, state=None, deep=None,
    shallow=None, lanes=1,
):  # fmt: skip
    """Latents of all frames, (n, 4, h, w) float32, still scaled by `scaling`.

    unet, context: the two Cells of the UNet as functions of arrays. config: their UNetConfig. noise (n, 4, h, w):
    standard normal. scaling: the VAE's scaling factor. progress(step, steps) is called before the first step and after
    each. state: file that keeps the last finished step; a run with the same inputs that finds it goes on from there,
    with nothing kept of what steps before it computed. deep, shallow: FeatureUNet and ShallowUNet as functions of
    arrays, for a feature_cache above 1. lanes: windows of a step that are computed at once, in threads; the latents are
    the same, since windows are put together in their order. Raises UsageError for lanes with what one window keeps for
    another.
    """
    if lanes > 1 and (settings.feature_cache > 1 or settings.guidance_reuse > 1):
        raise UsageError(
            f"feature_cache {settings.feature_cache} and guidance_reuse {settings.guidance_reuse} keep what earlier "
            "windows computed, which several processes do not share; set both to 1, or leave --pieces out"
        )
    count, _, height, width = noise.shape
    digest = clip.digest(settings, scaling, hashlib.sha256(noise.tobytes()).hexdigest())
    resume = Resume(state, digest, noise.shape, settings.steps)
    first, latents = resume.load()
    if latents is None:
        latents = scheduler.add_noise(np.float32(scaling) * clip.image_latents[None], noise).astype(np.float32)
    contexts = Contexts(context, config, clip, settings.window)
    masks = mask_tokens(config, clip.mask, height, width)
    guided = Guided(unet, deep, shallow, contexts, config, settings, masks, scheduler, clip)
    if progress:
        progress(first, settings.steps)
    for step in plan(settings, first):
        total, times = np.zeros_like(latents), np.zeros(count, np.float32)
        guided.begin(step)
        parts = windows(count, settings.window, settings.overlap, step.index * settings.shift_offset)
        for frames, prediction in zip(parts, predictions(guided, step, latents, parts, lanes)):
            np.add.at(total, frames, scheduler.step(prediction, latents[frames], step.index))
            np.add.at(times, frames, 1)
        latents = total / times[:, None, None, None]
        resume.save(step.index + 1, latents)
        if progress:
            progress(step.index + 1, settings.steps)
    resume.discard()
    return latents


def predictions(guided, step, latents, parts, lanes):
    """Yield the prediction of each window, in their order; `lanes` of them are computed at once."""

    def predict(frames):
        return guided(step, latents[frames], frames)

    if lanes == 1:
        yield from map(predict, parts)
        return
    with ThreadPoolExecutor(lanes, "windows") as pool:
        yield from pool.map(predict, parts)


class Resume:
    """The last finished step of a run of `steps` steps, in one safetensors file; without a path it does nothing.

    A frame's latents are a tensor of their own: the reader has a limit for one tensor, and a video may be long.
    """

    def __init__(self, path, digest, shape, steps):
        self._path, self._digest, self._steps = Path(path) if path else None, digest, steps
        self._frames = {f"frame{number}": tuple(shape[1:]) for number in range(shape[0])}

    def load(self):
        """(steps done, latents), or (0, None) if there is no file, a damaged one, or one of another run."""
        if self._path and self._path.is_file():
            try:
                with TensorFile(self._path) as file:
                    steps = file.metadata.get("steps")
                    ours = file.metadata.get("digest") == self._digest and file.shapes == self._frames
                    if ours and set(file.dtypes.values()) == {"F32"} and steps in map(str, range(1, self._steps + 1)):
                        return int(steps), np.stack([file.read(name) for name in self._frames])
            except (InputMissingError, WeightsError):
                return 0, None
        return 0, None

    def save(self, steps, latents):
        """Replace the file atomically: a run that is killed in between finds the step before."""
        if self._path:
            frames = zip(self._frames.items(), latents)
            tensors = [(name, "F32", shape, values.copy) for (name, shape), values in frames]
            write_tensors(self._path, tensors, {"digest": self._digest, "steps": steps})

    def discard(self):
        """Remove the file once the run is complete."""
        if self._path:
            self._path.unlink(missing_ok=True)
