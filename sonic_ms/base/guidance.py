"""Which guidance branches each denoising step computes, how deeply, and what is kept from step to step. numpy.

A step mixes three predictions: nothing (no photo, no sound), seen (photo only), heard (both). Four things save work,
the first of them exactly, the others by an approximation that is off by default:
- a branch whose weight is 0 is not computed;
- outside its interval of the steps, a strength of guidance is 1, which gives a branch weight 0;
- `seen - nothing`, what the photo changes, is reused for some steps;
- deep features of the UNet are reused for some steps (DeepCache, Ma et al., CVPR 2024).
What is kept belongs to a frame, never to a window: windows shift from step to step.
"""

from dataclasses import dataclass

import numpy as np

from sonic_ms.nn.host import time_sinusoids

NOTHING, SEEN, HEARD = range(3)


@dataclass(frozen=True)
class Step:
    """One denoising step. weights: of the three branches, then of the kept difference. deep: branches that the whole
    UNet computes; shallow: those that start from kept features; difference: seen - nothing is kept from this step."""

    index: int
    weights: tuple
    deep: tuple
    shallow: tuple = ()
    difference: bool = False


def plan(settings, first=0):
    """[Step] of the steps from number `first` on. settings: denoise.DenoiseSettings.

    Nothing is kept before the first of them, so a run that is resumed starts with whole computations.
    """
    steps, deep_at, difference_at = [], {}, None
    for index in range(first, settings.steps):
        image, audio = settings.guidance(index)
        weights = [1 - image, image - audio, audio, np.float32(0)]
        reusable = settings.guidance_reuse > 1 and not settings.fixed_batch and all(weights[:3])
        fresh = difference_at is not None and index - difference_at < settings.guidance_reuse
        if reusable and fresh:
            weights = [np.float32(0), 1 - audio, audio, image - 1]
        elif reusable:
            difference_at = index
        needed = [branch for branch in range(3) if weights[branch] != 0 or settings.fixed_batch]
        shallow = [one for one in needed if one in deep_at and index - deep_at[one] < settings.feature_cache]
        deep = [one for one in needed if one not in shallow]
        deep_at.update(dict.fromkeys(deep, index))
        steps.append(Step(index, tuple(weights), tuple(deep), tuple(shallow), reusable and not fresh))
    return steps


@dataclass(frozen=True)
class Work:
    """What a run's steps compute, for one window: whole, shallow: branches over all steps. whole_batches,
    shallow_batches: different sizes of batches, for each of which a Cell is compiled."""

    whole: int
    shallow: int
    whole_batches: int
    shallow_batches: int


def work_of(steps, batch_branches=True):
    """Work of a plan."""

    def batches(groups):
        sizes = {len(group) for group in groups if group}
        return len(sizes) if batch_branches else min(len(sizes), 1)

    deep, shallow = [step.deep for step in steps], [step.shallow for step in steps]
    return Work(sum(map(len, deep)), sum(map(len, shallow)), batches(deep), batches(shallow))


class Kept:
    """Arrays of frames: what one step leaves for the next. Where windows overlap, the mean of what they wrote.

    Features are held in float16, the difference of predictions in float32.
    """

    def __init__(self):
        self._arrays, self._times = {}, {}

    def begin(self, name):
        """Forget what earlier steps wrote under a name."""
        self._times[name] = None

    def write(self, name, frames, values, dtype, count):
        """values (t, ...) of frame indices (t,), which may repeat; count: frames of the clip."""
        if name not in self._arrays:
            self._arrays[name] = np.empty((count, *values.shape[1:]), dtype)
        if self._times.get(name) is None:
            self._times[name] = np.zeros(count, int)
        held, times = self._arrays[name], self._times[name]
        for frame, value in zip(frames, values):
            times[frame] += 1
            if times[frame] > 1:
                before = held[frame].astype(np.float32)
                value = before + (value - before) / np.float32(times[frame])
            held[frame] = value

    def read(self, name, frames):
        """(t, ...) float32 of frame indices."""
        return self._arrays[name][frames].astype(np.float32)


class Guided:
    """v-predictions of windows, guided away from no image and from no audio.

    unet: the whole UNet on arrays. deep, shallow: FeatureUNet and ShallowUNet on arrays, for a feature_cache above 1.
    """

    def __init__(self, unet, deep, shallow, contexts, config, settings, masks, scheduler, clip):
        self.unet, self.deep, self.shallow = unet, deep, shallow
        self.contexts, self.config, self.settings, self.masks = contexts, config, settings, masks
        self.scheduler, self.clip, self.kept = scheduler, clip, Kept()
        image = np.stack([np.zeros_like(clip.image_latents), clip.image_latents, clip.image_latents])
        self.image = np.repeat(image[:, None], settings.window, 1).astype(np.float32)  # (3, window, 4, h, w)

    def begin(self, step):
        """Before the windows of a step: what it will keep anew."""
        for name in [*step.deep, *(["difference"] if step.difference else [])]:
            self.kept.begin(name)

    def __call__(self, step, noisy, frames):
        """Prediction (t, 4, h, w) of the window of these frame indices, from its noisy latents."""
        settings, clip = self.settings, self.clip
        scaled = self.scheduler.scale_input(noisy, step.index).astype(np.float32)
        translation, expression = clip.buckets[frames].mean(0) * settings.dynamic_scale
        ids = [settings.fps, translation * settings.motion_scale, expression]
        branches = self.contexts.branches(frames)
        predictions = {}
        for names, run in ((step.deep, self._run_deep), (step.shallow, self._run_shallow)):
            for group in [names] if settings.batch_branches else [(name,) for name in names]:
                if not group:
                    continue
                sample = np.stack([np.concatenate([scaled, self.image[branch]], axis=1) for branch in group])
                time, added = time_sinusoids(self.config, self.scheduler.timesteps[step.index], [ids] * len(group))
                packed = [np.concatenate(parts) for parts in zip(*[branches[branch] for branch in group])]
                inputs = (sample, time, added, self.masks, *packed, self.contexts.positions)
                predictions |= dict(zip(group, run(group, frames, inputs)))
        if step.difference:
            change = predictions[SEEN] - predictions[NOTHING]
            self.kept.write("difference", frames, change, np.float32, len(clip.buckets))
        if len(predictions) == 3:
            nothing, seen, heard = (predictions[branch] for branch in range(3))
            image_strength, audio_strength = settings.guidance(step.index)
            return nothing + image_strength * (seen - nothing) + audio_strength * (heard - seen)
        total = sum(step.weights[branch] * predictions[branch] for branch in sorted(predictions))
        return total + step.weights[3] * self.kept.read("difference", frames) if step.weights[3] else total

    def _run_deep(self, group, frames, inputs):
        """Predictions (b, t, 4, h, w) of the whole UNet; features are kept if there is a cache."""
        if self.settings.feature_cache == 1:
            return self.unet(*inputs)
        predictions, features = self.deep(*inputs)
        features = features.reshape(len(group), len(frames), *features.shape[1:])
        for branch, part in zip(group, features):
            self.kept.write(branch, frames, part, np.float16, len(self.clip.buckets))
        return predictions

    def _run_shallow(self, group, frames, inputs):
        """Predictions from the features that an earlier step kept."""
        return self.shallow(*inputs, np.concatenate([self.kept.read(branch, frames) for branch in group]))
