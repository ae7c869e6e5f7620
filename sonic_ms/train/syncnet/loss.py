"""The lip-sync expert in sonic-base's loss: does the mouth that the UNet draws say what is heard?

The prediction of a short window becomes latents without noise, the frozen VAE decoder makes pictures of them, and the
frozen expert (see syncnet.py) compares their mouths with the sound of the same moment. Only little noise leaves a
prediction with a mouth of its own; above a level it is the mean of all mouths that could be, and the term is left out.
"""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from sonic_ms.base.scheduler import clean_latents
from sonic_ms.files.config import require
from sonic_ms.files.weights import load_config, load_weights
from sonic_ms.media.audio import N_MELS, voice_activity
from sonic_ms.train.base.diffusion import SonicLoss
from sonic_ms.train.syncnet.network import (
    MEL_PER_FRAME,
    MOUTH_HEIGHT,
    MOUTH_WIDTH,
    SyncNet,
    SyncNetConfig,
    mouth_matrices,
    softplus,
)
from sonic_ms.train.syncnet.training import STEP, clip_mel, voiced_starts


@dataclass(frozen=True)
class SyncConfig:
    """expert: folder that the recipe syncnet wrote, OUT/syncnet. weight: of the term. max_sigma: the noise level from
    which on a clip does not count."""

    expert: str
    weight: float = 0.03  # as Wav2Lip has it (Prajwal et al. 2020)
    max_sigma: float = 1.0

    def __post_init__(self):
        checks = (
            ("weight", self.weight > 0, "above 0; leave sync out for none"),
            ("max_sigma", self.max_sigma > 0, "above 0"),
        )
        require(self, checks, "sync: ")


def load_expert(folder):
    """(SyncNetConfig, SyncNet) of a folder that the recipe syncnet wrote; float32 in every precision: it is small."""
    config = load_config(SyncNetConfig, folder)
    return config, load_weights(SyncNet(config), folder)


class SyncWindows:
    """The term's inputs for a batch of clips. frames: pictures of the expert's window; downscale: of the VAE."""

    def __init__(self, frames, downscale, max_sigma):
        self.frames, self.downscale, self.max_sigma = frames, downscale, max_sigma

    def __call__(self, rng, clips, drawn):
        """Arrays for SyncTerm. clips: of clips.cut, all of one size; drawn: their Draw.

        Of each clip a window with voice. A clip without one counts 0 times, and so does one with too much noise or
        whose sound the UNet does not get.
        """
        t, _, height, width = np.shape(clips[0]["latents"])
        sides = (height * self.downscale, width * self.downscale)
        counts = (drawn.sigma < self.max_sigma) * drawn.keep_audio
        index, rows, columns, mel = [], [], [], []
        for number, clip in enumerate(clips):
            offset, sound = self.pick(rng, clip, t)
            counts[number] *= offset is not None
            index.append(number * t + (offset or 0) + np.arange(self.frames))
            matrices = mouth_matrices(clip["box"], *sides)
            rows.append(matrices[0])
            columns.append(matrices[1])
            mel.append(sound)
        arrays = (drawn.sigma.reshape(-1, 1, 1, 1, 1), np.stack(rows), np.stack(columns), np.stack(mel), counts)
        return np.concatenate(index).astype(np.int32), *(np.ascontiguousarray(array, np.float32) for array in arrays)

    def pick(self, rng, clip, t):
        """(first picture of a window with voice, its sound (1, 80, 8*frames)); (None, silence) when there is none."""
        samples = np.asarray(clip["audio"], np.float32) / 32767
        firsts = clip["first"] + np.arange(t - self.frames + 1)  # in the whole sample, at 12.5 a second
        possible = np.intersect1d(STEP * firsts, voiced_starts(voice_activity(samples), STEP * self.frames))
        length = MEL_PER_FRAME * self.frames
        if not len(possible):
            return None, np.zeros((1, N_MELS, length), np.float32)
        first = int(rng.choice(possible)) // STEP
        return first - clip["first"], clip_mel(samples)[None, :, MEL_PER_FRAME * first :][:, :, :length]


class SyncTerm(nn.Cell):
    """Cross-entropy of "this mouth says this sound", by a frozen expert, of what a v-prediction shows.

    decoder: vae.Decoder, in any precision; scaling: the VAE's scaling factor; expert: SyncNet; frames: of its window.
    """

    def __init__(self, decoder, scaling, expert, frames):
        super().__init__()
        self.decoder, self.scaling, self.expert, self.frames = decoder, scaling, expert, frames

    def construct(self, predicted, noisy, index, sigma, rows, columns, mel, counts):
        """predicted, noisy (b, t, 4, h, w): v, and what it was predicted from, scaled to unit variance. index
        (b*frames,): frames of the windows in b*t; sigma (b, 1, 1, 1, 1); rows (b, 48, H), columns (b, W, 64): see
        mouth_matrices; mel (b, 1, 80, 8*frames); counts (b,): 1 or 0. Returns the sum over clips that count, over b."""
        b, t, c, h, w = predicted.shape
        clean = clean_latents(predicted, noisy * (sigma * sigma + 1) ** 0.5, sigma) / self.scaling
        window = ops.gather(ops.reshape(clean, (b * t, c, h, w)), index, 0)
        pictures = self.decoder(ops.cast(window, self.decoder.conv_in.weight.dtype), self.frames)
        mouth, sound = self.expert(self.crop(ops.cast(pictures, ms.float32), rows, columns), mel)
        logit = self.expert.logit(ops.reduce_sum(mouth * sound, 1))
        return ops.reduce_mean(counts * softplus(-logit))

    def crop(self, pictures, rows, columns):
        """Pictures (b*frames, 3, H, W) -> mouths (b, 3*frames, 48, 64)."""
        b, channels, height, width = rows.shape[0], 3 * self.frames, pictures.shape[2], pictures.shape[3]
        narrow = ops.BatchMatMul()(ops.reshape(pictures, (b, channels * height, width)), columns)
        narrow = ops.transpose(ops.reshape(narrow, (b, channels, height, MOUTH_WIDTH)), (0, 2, 1, 3))
        narrow = ops.reshape(narrow, (b, height, channels * MOUTH_WIDTH))
        mouths = ops.reshape(ops.BatchMatMul()(rows, narrow), (b, MOUTH_HEIGHT, channels, MOUTH_WIDTH))
        return ops.transpose(mouths, (0, 2, 1, 3))


class SyncedLoss(SonicLoss):
    """SonicLoss plus weight * SyncTerm; takes SonicLoss's inputs, then those of SyncWindows."""

    def __init__(self, sync, weight, *arguments):
        super().__init__(*arguments)
        self.sync, self.weight = sync, weight

    def construct(
        self,
        sample,
        time,
        ids,
        masks,
        seen,
        states,
        target,
        weight,
        bucket_states,
        bucket_seen,
        bucket_target,
        index,
        sigma,
        rows,
        columns,
        mel,
        counts,
    ):
        predicted = self.predict(sample, time, ids, masks, seen, states)
        loss = self.errors(predicted, target, weight, bucket_states, bucket_seen, bucket_target)
        noisy = sample[:, :, : target.shape[2]]
        return loss + self.weight * self.sync(predicted, noisy, index, sigma, rows, columns, mel, counts)
