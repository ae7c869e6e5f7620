"""`sonic-ms personalize`: sonic-edge's painter learns the mouth of one person from a short clip.

The shipped painter knows an average set of teeth from drawings. Here it sees what the mouth of this person really
looked like (footage.py) and is trained on for a few hundred steps. The motion field has no weights; the audio encoder
stays as it is.
"""

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn, ops
from tqdm import tqdm

from sonic_ms.models.edge.renderer import ConvBlock, MouthFeatures, Painter, composite
from sonic_ms.models.edge.rig import OFFSETS, TERMS
from sonic_ms.models.edge.texture import OVERSAMPLING, make_texture

STEPS, BATCH, RATE = 400, 8, 1e-3
HELD_OUT = 0.2  # of the frames, the last ones: no step sees them
MARGIN = 0.02  # of the clip that lies unused between the two, as neighbouring frames are nearly the same
FEWEST_HELD_OUT = 5
INSIDE_WEIGHT = 4.0  # of the mouth's inside, besides the 1 of the lips; the skin around does not count
OCCLUDED = 2.0  # times the median difference of the skin to the reference: a hand or hair before the mouth
GAIN = (0.5, 2.0)  # of the light against the reference's; other frames are left out


@dataclass(frozen=True)
class Pairs:
    """features (n, FEATURES, 96, 128); targets (n, 3, 96, 128) in the reference's light; weights (n, 1, 96, 128), 1 on
    lips and opening, 0 elsewhere; numbers (n,) of the frames in the clip. All float32 but the numbers."""

    features: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    numbers: np.ndarray

    def __getitem__(self, picked):
        return Pairs(self.features[picked], self.targets[picked], self.weights[picked], self.numbers[picked])

    def __len__(self):
        return len(self.numbers)


def lip_distances(features, row):
    """(above, below): how far each pixel of the rectangle lies outside the outer edge of the upper and of the lower
    lip, in half mouth widths, (96, 128) each; both negative on lips and opening."""
    u, v = features[10], features[11]
    un = u / (1 + row[OFFSETS["width"]])
    c = np.clip(un, -1, 1)
    basis = np.stack([(1 - c**2) * c**k for k in range(5)] + [c**2])
    contours = row[OFFSETS["target"] : OFFSETS["target"] + 4 * TERMS].reshape(4, TERMS)
    beyond = 2 * np.maximum(np.abs(un) - 1, 0)
    upper, lower = np.tensordot(contours[[0, 3]], basis, 1)
    return upper - v + beyond, v - lower + beyond


def make_pairs(footage):
    """Pairs of the frames whose light can be matched to the reference's and whose skin is not covered."""
    portrait = footage.portrait
    network = MouthFeatures(portrait.crop.shape[0] * OVERSAMPLING).set_train(False)
    texture = Tensor(make_texture(portrait.crop))
    rows = np.pad(footage.parameters, ((0, -len(footage.parameters) % BATCH), (0, 0)), mode="edge")
    parts = tqdm(range(0, len(rows), BATCH), desc="moving the reference", mininterval=2)
    features = np.concatenate([network(texture, Tensor(rows[i : i + BATCH])).asnumpy() for i in parts])
    features = features[: len(footage.parameters)]
    targets, weights, differences = [], [], []
    for feature, row, target in zip(features, footage.parameters, footage.targets):
        above, below = lip_distances(feature, row)
        skin = (np.maximum(above, below) > 0.1) & (np.abs(feature[10]) < 1.2)
        gain = np.median(target[:, skin], axis=1) / np.maximum(np.median(feature[:3, skin], axis=1), 1e-3)
        target = target / np.clip(gain, *GAIN)[:, None, None]
        sound = (gain > GAIN[0]).all() and (gain < GAIN[1]).all()
        differences.append(np.abs(target - feature[:3])[:, skin].mean() if sound else np.inf)
        targets.append(np.clip(target, 0, 1))
        weights.append(np.float32((np.maximum(above, below) < 0)[None]))
    good = np.array(differences) <= OCCLUDED * np.median(differences)
    pairs = Pairs(features, np.array(targets, np.float32), np.array(weights), footage.numbers)
    return pairs[np.flatnonzero(good & np.isfinite(differences))]


def split(pairs, frames):
    """(training, held out): the last HELD_OUT of the pairs, and those before them by at least MARGIN of the clip."""
    first = len(pairs) - max(FEWEST_HELD_OUT, round(HELD_OUT * len(pairs)))
    early = np.flatnonzero(pairs.numbers < pairs.numbers[first] - MARGIN * frames)
    return pairs[early], pairs[first:]


class ClipLoss(nn.Cell):
    """L1 on lips and opening and on their gradients, as PaintLoss of the drawings, but blind to the skin around: it
    moves in ways that no paint explains."""

    def __init__(self, painter):
        super().__init__()
        self.painter = painter

    def construct(self, features, target, weight):
        picture = composite(features, self.painter(features))
        error = (picture - target) * weight * (1.0 + INSIDE_WEIGHT * features[:, 7:8])
        across = error[:, :, :, 1:] - error[:, :, :, :-1]
        down = error[:, :, 1:, :] - error[:, :, :-1, :]
        edges = ops.reduce_mean(ops.abs(across)) + ops.reduce_mean(ops.abs(down))
        return ops.reduce_mean(ops.abs(error)) + edges


def measure(painter, pairs):
    """Mean absolute error (0..1) on lips and opening, and on the opening alone; and how much of the target's gradients
    inside the opening the picture has: {"mouth", "inside", "detail"}."""
    sums = np.zeros(6)
    for i in range(len(pairs)):
        features = Tensor(pairs.features[i : i + 1])
        picture = composite(features, painter(features)).asnumpy()[0]
        error = np.abs(picture - pairs.targets[i]).mean(0)
        mouth, inside = pairs.weights[i, 0] > 0, pairs.features[i, 7] > 0.5
        steep = [np.abs(np.diff(p.mean(0), axis=1))[inside[:, 1:]].sum() for p in (picture, pairs.targets[i])]
        sums += [error[mouth].sum(), mouth.sum(), error[inside].sum(), inside.sum(), *steep]
    return {"mouth": sums[0] / sums[1], "inside": sums[2] / sums[3], "detail": sums[4] / sums[5]}


def unfolded(painter, config):
    """A painter as it is stored, whose normalisations do nothing, from one whose norms were folded."""
    stored = Painter(config).set_train(False)
    trained = dict(painter.parameters_and_names())
    for _, block in stored.cells_and_names():
        if isinstance(block, ConvBlock):
            count = block.norm.moving_variance.shape
            block.norm.moving_variance.set_data(Tensor(np.full(count, 1 - block.norm.eps, np.float32)))
    for name, parameter in stored.parameters_and_names():
        if name in trained:
            parameter.set_data(Tensor(trained[name].asnumpy()))
    return stored
