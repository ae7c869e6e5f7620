"""Recipe of the lip-sync expert: learn from shards which sound belongs to which mouth.

Every mouth of a batch is compared with every sound of it: n windows give n pairs in sync and n^2 - n that are not.
Several windows come from one clip, so that part of the wrong pairs have the right face and voice at the wrong time;
they count as much as the pairs of other clips, which could be told apart by the voice alone. A training that has
learnt nothing after a while stops: a loss at chance, ln 2, is how these networks fail.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

from sonic_ms.data.index import Index
from sonic_ms.data.shards import pictures, read_rows, unpack
from sonic_ms.errors import UsageError
from sonic_ms.files.config import require
from sonic_ms.files.weights import save_model
from sonic_ms.media.audio import log_mel, voice_activity
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train
from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig, mouth_matrices, softplus

STEP = 2  # pictures are stored at 25 a second, a window has every second
MEL = 4  # log-mel frames of one of them
CHANCE = math.log(2)
NEVER_BETTER = 0.95  # of CHANCE: a held-out loss that has not been below this has learnt nothing
MIN_SHIFT = 4  # pictures (0.16 s) between windows of one clip that count as out of sync
MAX_SHIFT = 25  # pictures of the shifts that are measured
MIN_VOICE = 0.5  # share of a window with voice: silence fits any closed mouth


@dataclass(frozen=True)
class SyncNetTraining:
    """shards, held_out: folders of `sonic-ms data build` (no --model needed); the second of other people and speech.

    per_clip: windows of a batch from the same clip. patience: steps after which a held-out loss still at chance ends
    the training. light: most that a window is made lighter or darker.
    """

    shards: str
    held_out: str
    loop: LoopConfig
    network: SyncNetConfig = field(default_factory=SyncNetConfig)
    per_clip: int = 4
    patience: int = 1000
    light: float = 0.15

    def __post_init__(self):
        n = self.loop.batch_size
        checks = (
            ("per_clip", 2 <= self.per_clip <= n // 2, "at least 2 and at most half of batch_size"),
            ("patience", self.patience >= 1, "at least 1"),
            ("light", 0 <= self.light < 1, "0 to below 1"),
        )
        require(self, checks)
        require(self.network, [("frames", 2 <= self.network.frames <= 25, "2 to 25")], "network: ")
        require(self.loop, [("batch_size", n % self.per_clip == 0, "a multiple of per_clip")], "loop: ")


@dataclass(frozen=True)
class MouthClip:
    """mouths uint8 (n, 48, 64, 3) at 25 a second; mel float32 (80, 4n), normalised; voiced bool (n,)."""

    mouths: np.ndarray
    mel: np.ndarray
    voiced: np.ndarray


def normalise_mel(mel):
    """Remove level and channel colour: subtract each band's mean over the loud frames.

    mel: (80, n) Whisper log-mel (1 unit = 40 dB). Frames within 1 unit of the loudest band-mean count as loud.
    Returns (80, n) float32; on digital silence all zeros.
    """
    level = mel.mean(axis=0)
    loud = level >= level.max() - 1.0
    return (mel - mel[:, loud].mean(axis=1, keepdims=True)).astype(np.float32)


def clip_mel(samples):
    """The log-mel that the expert hears, (80, 100 a second), of a whole clip: float32 samples at 16 kHz."""
    return normalise_mel(log_mel(samples))


def read_clips(folder):
    """MouthClips of a folder of shards; a minute takes 14 MB of memory. UsageError when there is none."""
    index = Index.open(folder)
    for entry in index.shards():
        index.check_shard(entry)
    clips = []
    for entry in tqdm(index.shards(), desc=f"mouths of {folder}", unit="video", mininterval=2):
        for row in read_rows(Path(folder) / entry["shard"]):
            record, frames = unpack(row), pictures(row)
            rows, columns = mouth_matrices(record["meta"]["box"], *frames.shape[1:3])
            mouths = np.stack([np.einsum("rh,hwc,wk->rkc", rows, one, columns, optimize=True) for one in frames])
            samples = record["audio"].astype(np.float32) / 32767
            mouths = np.round(np.clip(mouths, 0, 255)).astype(np.uint8)
            clips.append(MouthClip(mouths, clip_mel(samples), voice_activity(samples)[: len(mouths)]))
    if not clips:
        raise UsageError(f"{folder} holds no clip; see {index.path} for the reasons")
    return clips


def voiced_starts(voiced, span):
    """Where windows of `span` pictures with enough voice may begin; voiced: bool (n,), see MouthClip."""
    if len(voiced) < span:
        return np.zeros(0, int)
    return np.flatnonzero(np.lib.stride_tricks.sliding_window_view(voiced, span).mean(1) >= MIN_VOICE)


class MouthWindows:
    """MouthWindows of clips. frames: pictures of one, at 12.5 a second."""

    def __init__(self, clips, frames, per_clip):
        self.frames, self.per_clip = frames, per_clip
        self.span = STEP * frames
        self.clips = [clip for clip in clips if len(self.starts(clip)) >= per_clip * MIN_SHIFT]
        if len(self.clips) < 2:
            raise UsageError(
                f"{len(self.clips)} of {len(clips)} clips have speech for {per_clip} windows of {frames / 12.5:g} s; "
                "expected at least 2 clips: give more or longer ones"
            )

    def starts(self, clip):
        """Where windows with enough voice may begin."""
        return voiced_starts(clip.voiced, self.span)

    def mouths(self, clip, start):
        """(3*frames, 48, 64) float32 in [-1, 1]."""
        part = clip.mouths[start : start + self.span : STEP].astype(np.float32) / 127.5 - 1
        return part.transpose(0, 3, 1, 2).reshape(-1, *part.shape[1:3])

    def sound(self, clip, start):
        """(1, 80, 8*frames)."""
        return clip.mel[None, :, MEL * start : MEL * (start + self.span)]

    def pick(self, rng, clip):
        """per_clip starts in a clip, at least MIN_SHIFT apart."""
        possible, chosen = self.starts(clip), []
        while len(chosen) < self.per_clip:
            if not len(possible):  # the first ones lay in the way: begin anew
                possible, chosen = self.starts(clip), []
            chosen.append(int(rng.choice(possible)))
            possible = possible[np.abs(possible - chosen[-1]) >= MIN_SHIFT]
        return chosen

    def batch(self, rng, size, light=0.0):
        """(mouths, mel, weights) for PairLoss: `size` windows, per_clip of each clip."""
        numbers = rng.permutation(len(self.clips))[: size // self.per_clip]
        numbers = np.resize(numbers, size // self.per_clip)
        owners = np.repeat(numbers, self.per_clip)
        mouths, mel = [], []
        for number in numbers:
            clip = self.clips[number]
            for start in self.pick(rng, clip):
                one = self.mouths(clip, start) * rng.uniform(1 - light, 1 + light) + rng.uniform(-light, light)
                mouths.append(one[:, :, ::-1] if light and rng.random() < 0.5 else one)
                mel.append(self.sound(clip, start))
        return np.ascontiguousarray(mouths, np.float32), np.ascontiguousarray(mel, np.float32), pair_weights(owners)


def pair_weights(owners):
    """Weights (2, n, n) of the pairs of mouth i with sound j: [0] as pairs in sync, [1] as pairs that are not. Each
    sums to a half; of the second, half is for pairs of one clip. owners: number of each window's clip, (n,)."""
    same = owners[:, None] == owners[None, :]
    own = np.eye(len(owners), dtype=bool)
    shifted, others = same & ~own, ~same
    wrong = 0.25 * shifted / max(shifted.sum(), 1) + 0.25 * others / max(others.sum(), 1)
    return np.stack([0.5 * own / len(owners), wrong * 0.5 / wrong.sum()]).astype(np.float32)


class PairLoss(nn.Cell):
    """Binary cross-entropy of all pairs of a batch; ln 2 for a network that has learnt nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def construct(self, mouths, mel, weights):
        mouth, sound = self.network(mouths, mel)
        logits = self.network.logit(ops.matmul(mouth, ops.transpose(sound, (1, 0))))
        return ops.reduce_sum(softplus(-logits) * weights[0] + softplus(logits) * weights[1])


class Judge:
    """Held-out figures, and the end of a training that has learnt nothing."""

    def __init__(self, loss, windows, config):
        self.loss, self.windows, self.config = loss, windows, config
        rng = np.random.default_rng(0)
        self.batches = [windows.batch(rng, config.loop.batch_size) for _ in range(8)]
        self.best = np.inf

    def __call__(self, step):
        """{test_loss, test_accuracy}; UsageError when the loss is still at chance after `patience` steps."""
        losses = [float(self.loss(*map(ms.Tensor, batch)).asnumpy()) for batch in self.batches]
        self.best = min(self.best, float(np.mean(losses)))
        if step >= self.config.patience and self.best > NEVER_BETTER * CHANCE:
            raise UsageError(
                f"the held-out loss is {np.mean(losses):.3f} after {step} steps, no better than chance "
                f"({CHANCE:.3f}): check that sound and pictures belong together, then try a larger batch_size, more "
                "frames or another learning_rate; when the loss in training has fallen, give clips of more people"
            )
        return {"test_loss": float(np.mean(losses)), "test_accuracy": accuracy(self.loss.network, self.windows)}


def accuracy(network, windows, count=256):
    """Share of right answers about `count` windows with their own sound and with sound of the same clip 0.16 to 1 s
    earlier or later; 0.5 is chance."""
    rng = np.random.default_rng(1)
    right = []
    for first in range(0, count, 32):
        mouths, own, shifted = [], [], []
        for _ in range(min(32, count - first)):
            clip = windows.clips[rng.integers(len(windows.clips))]
            possible = windows.starts(clip)
            start = int(rng.choice(possible))
            away = np.abs(possible - start)
            near = possible[(away >= MIN_SHIFT) & (away <= MAX_SHIFT)]
            other = int(rng.choice(near if len(near) else possible[away >= MIN_SHIFT]))
            mouths.append(windows.mouths(clip, start))
            own.append(windows.sound(clip, start))
            shifted.append(windows.sound(clip, other))
        for sound, sign in ((own, 1), (shifted, -1)):
            pair = (ms.Tensor(np.ascontiguousarray(array, np.float32)) for array in (mouths, sound))
            mouth, heard = (part.asnumpy() for part in network(*pair))
            logits = network.scale.asnumpy() * (mouth * heard).sum(1) + network.bias.asnumpy()
            right += (sign * logits > 0).tolist()
    return float(np.mean(right))


def run(config, folder, resume=False):
    """The recipe syncnet of `sonic-ms train`: train and write folder/syncnet. Returns the last row of the log."""
    frames, per_clip = config.network.frames, config.per_clip
    windows = MouthWindows(read_clips(config.shards), frames, per_clip)
    held_out = MouthWindows(read_clips(config.held_out), frames, per_clip)
    ms.set_seed(config.loop.seed)
    network = SyncNet(config.network)
    loss = PairLoss(network)
    judge = Judge(loss, held_out, config)

    def batch(rng, size):
        return windows.batch(rng, size, config.light)

    last = train(loss, batch, config.loop, folder, judge, resume, identity_of(config))
    save_model(network, config.network, Path(folder) / "syncnet")
    return last
