"""What `sonic-ms personalize` learns from: the mouths of a clip, as the painter is told of them and as they looked, and
mouths that the clip lacks."""

from dataclasses import dataclass, replace

import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from sonic_ms.edge.renderer import FEATURES, MouthFeatures, composite
from sonic_ms.edge.rig import OFFSETS, TERMS, frame_parameters
from sonic_ms.edge.texture import OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH, make_texture
from sonic_ms.train.edge.footage import head_poses, lower_the_teeth
from sonic_ms.train.edge.renderer import random_curves

AT_ONCE = 8  # rows of parameters that the motion field takes
HELD_OUT = 0.2  # of the frames, the last ones: no step sees them
MARGIN = 0.02  # of the clip that lies unused between the two, as neighbouring frames are nearly the same
FEWEST_HELD_OUT = 5
OCCLUDED = 2.0  # times the median difference of the skin to the reference: a hand or hair before the mouth
GAIN = (0.5, 2.0)  # of the light against the reference's; other frames are left out
# differences in opening, stretch (both in half mouth widths) and jaw from which on two mouths are not alike
UNLIKE = np.array([0.05, 0.05, 0.075])
TEETH_HEIGHTS = np.round(np.arange(-0.1, 0.65, 0.05), 2)  # half mouth widths below the average, see `find_teeth`
TEETH_FRAMES = 40  # that these are compared on
DRAWN_DETAIL = 0.6  # share of the shipped painter's detail in what is learned, see `draw_details`
DRAWN_LIKENESS = 0.3  # correlation of both mouths below which none is: lips that are closed in the clip
DETAIL_SIZE = 2.0  # pixels of the mouth's rectangle: sigma of the blur that takes details away


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


def move(portrait, parameters):
    """Features (n, FEATURES, 96, 128) of a portrait moved by rows of parameters."""
    network = MouthFeatures(portrait.crop.shape[0] * OVERSAMPLING).set_train(False)
    texture = Tensor(make_texture(portrait.crop))
    rows = np.pad(parameters, ((0, -len(parameters) % AT_ONCE), (0, 0)), mode="edge")
    features = np.empty((len(rows), FEATURES, ROI_HEIGHT, ROI_WIDTH), np.float32)  # 1.2 MB a row: no second copy
    for i in tqdm(range(0, len(rows), AT_ONCE), desc="moving the reference", mininterval=2):
        features[i : i + AT_ONCE] = network(texture, Tensor(rows[i : i + AT_ONCE])).asnumpy()
    return features[: len(parameters)]


def shapes(parameters):
    """(n, 3): opening and stretch in half mouth widths, jaw 0..1, of rows of parameters."""
    paint = OFFSETS["paint"]
    return parameters[:, [paint, OFFSETS["width"], paint + 1]]


def are_unlike(rows, known):
    """(n,) bool: rows of parameters whose mouth differs from each of the known ones."""
    return (np.abs(shapes(rows)[:, None] - shapes(known)) / UNLIKE > 1).any(-1).all(-1)


def rehearse(footage, painter, numbers, seed, count):
    """Pairs of what `painter` shows at `count` mouths of speech unlike all of the clip's frames `numbers`; None when
    the clip has them all."""
    rng = np.random.default_rng(seed)
    known = footage.parameters[np.isin(footage.numbers, numbers)]
    curves, poses = random_curves(rng, 8 * count), head_poses(rng, 8 * count)
    rows = frame_parameters(footage.portrait.rig, curves, poses)
    rows = rows[are_unlike(rows, known)][:count]
    if not len(rows):
        return None
    features = move(footage.portrait, rows)
    weights = [np.float32(np.maximum(*lip_distances(one, row)) < 0)[None] for one, row in zip(features, rows)]
    numbers = np.full(len(rows), -1)
    return Pairs(features, show(painter, features), np.array(weights), numbers)


def make_pairs(footage):
    """Pairs of the frames whose light can be matched to the reference's and whose skin is not covered."""
    features = move(footage.portrait, footage.parameters)
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


def likeness(*colours):
    """Correlation of the greys of two lists of pixels, each (3, n)."""
    return np.corrcoef([one.mean(0) for one in colours])[0, 1]


def find_teeth(footage, painter, pairs):
    """How many half mouth widths further down than average the teeth of a clip are: there what is bright and what is
    dark inside the mouth correlates most between the clip and what the shipped painter shows.

    The rows of a clip have the height of the lips from the base of the nose, which a smile lifts, too: the teeth, which
    stay, seem to hang lower. Some people show more of them than others besides.
    """
    some = pairs[np.linspace(0, len(pairs) - 1, min(TEETH_FRAMES, len(pairs))).astype(int)]
    used = np.isin(footage.numbers, some.numbers)
    rows = [lower_the_teeth(footage, height).parameters[used] for height in TEETH_HEIGHTS]
    found = []
    for features in np.split(move(footage.portrait, np.concatenate(rows)), len(rows)):
        inside = features[:, 7] > 0.5
        found.append(likeness(*[one.swapaxes(0, 1)[:, inside] for one in (show(painter, features), some.targets)]))
    return float(TEETH_HEIGHTS[np.argmax(found)])


def without_details(picture, mask):
    """A picture (3, h, w) blurred inside a mask (h, w), bool, to which the pixels outside add nothing."""
    import cv2

    mask = np.float32(mask)
    *planes, total = [cv2.GaussianBlur(plane * mask, (0, 0), DETAIL_SIZE) for plane in (*picture, np.ones_like(mask))]
    return np.stack(planes) / np.maximum(total, 1e-3)


def draw_details(pairs, painter):
    """Pairs whose mouths have the light and shade of the clip inside, but the details that `painter` draws there, in
    frames where both show nearly the same.

    The gaps between teeth are faint and lie elsewhere with every turn of the head: L1 answers with the median, a white
    row without any.
    """
    targets = pairs.targets.copy()
    for target, drawn, feature in zip(targets, show(painter, pairs.features), pairs.features):
        inside = feature[7] > 0.5
        if likeness(target[:, inside], drawn[:, inside]) < DRAWN_LIKENESS:
            continue
        details = drawn - without_details(drawn, inside)
        learned = np.clip(without_details(target, inside) + DRAWN_DETAIL * details, 0, 1)
        target += feature[7] * (learned - target)
    return replace(pairs, targets=targets)


def show(painter, features):
    """Mouth rectangles as a viewer sees them, (n, 3, 96, 128) in 0..1."""
    return np.concatenate([composite(Tensor(one[None]), painter(Tensor(one[None]))).asnumpy() for one in features])
