"""Recipe of sonic-edge's mouth painter: made-up faces and real portraits, both moved by the real motion field, with the
inside of the mouth drawn by mouths.py as the target."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from tqdm import tqdm

from sonic_ms.edge.curves import CURVES, JAW
from sonic_ms.edge.renderer import FEATURES, MouthFeatures, Painter, PainterConfig, composite
from sonic_ms.edge.rig import OFFSETS, build_rig, frame_parameters, with_light
from sonic_ms.edge.texture import OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH, make_texture
from sonic_ms.face import detect, mesh
from sonic_ms.files.assets import fetch
from sonic_ms.files.config import require
from sonic_ms.files.weights import save_model
from sonic_ms.media import video
from sonic_ms.media.image import load_image
from sonic_ms.train.edge.articulation import SHAPE_OF, SILENCE
from sonic_ms.train.edge.mouths import (
    SKIN_TONES,
    Dentition,
    lip_shade,
    paint_interior,
    random_dentition,
    random_face,
    random_rig,
)
from sonic_ms.train.loop.trainer import LoopConfig, identity_of, train

SIDE = 192  # pixels of a training crop
VIEWS = 4  # mouth shapes per face and step
FRAMES_PER_CLIP = 24  # portraits taken from each real clip
TEST_FACES = 16
HELD_OUT = 9  # kind of the faces that the published figures are of


@dataclass(frozen=True)
class EdgeRendererConfig:
    """faces: how many are drawn, each with VIEWS mouth shapes; real_share: part of them that are real portraits;
    open_share: part of the made-up ones with open mouths; the weights are those of PaintLoss."""

    loop: LoopConfig
    faces: int = 1000
    real_share: float = 0.35
    open_share: float = 0.4
    inside_weight: float = 4.0
    edge_weight: float = 1.0

    def __post_init__(self):
        checks = (
            ("faces", self.faces >= 1, "at least 1"),
            ("real_share", 0 <= self.real_share <= 1, "0 to 1"),
            ("open_share", 0 <= self.open_share <= 1, "0 to 1"),
            ("inside_weight", self.inside_weight >= 0, "0 or more"),
            ("edge_weight", self.edge_weight >= 0, "0 or more"),
        )
        require(self, checks)


def crop_face(rgb, points):
    """(SIDE, SIDE, 3) float32 crop around the face and its Rig."""
    import cv2

    side = 2.4 * mesh.face_height(points)
    middle = (points[mesh.FOREHEAD, :2] + points[mesh.CHIN, :2]) / 2
    scale = SIDE / side
    matrix = np.array([[scale, 0, SIDE / 2 - middle[0] * scale], [0, scale, SIDE / 2 - middle[1] * scale]])
    crop = cv2.warpAffine(rgb, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT_101)
    return crop.astype(np.float32), build_rig((points[:, :2] @ matrix[:, :2].T + matrix[:, 2]) / SIDE)


def real_portraits():
    """Crops and rigs from the pinned clips and photo; frames without a clear frontal face are left out."""
    analyzer = detect.FaceAnalyzer()
    pictures = [load_image(fetch("portrait_photo.jpg"))]
    for name in ("portrait_clip.mp4", "portrait_clip_studio.mp4"):
        frames = list(video.read_video(fetch(name)))
        pictures += frames[:: max(1, len(frames) // FRAMES_PER_CLIP)]
    portraits = []
    for rgb in pictures:
        found = analyzer.detect(rgb)
        if not found or found[0].score < 0.8:
            continue
        landmarks = analyzer.landmarks(rgb, found[0])
        if landmarks.score > 0.9 and abs(mesh.pose(landmarks.points)[0]) < 30:
            portraits.append(crop_face(rgb, landmarks.points))
    return portraits


def recolour(rng, crop):
    """Another exposure and another skin tone; one clip is black and white, and grey skin must not mean grey teeth."""
    grey = crop.mean(axis=2, keepdims=True)
    saturation = np.abs(crop - grey).mean() / (grey.mean() + 1)
    tone = SKIN_TONES[rng.integers(len(SKIN_TONES))]
    strength = rng.uniform(0.7, 1.4) if saturation < 0.1 else rng.uniform(-0.2, 0.4)
    tint = (tone / tone.mean()) ** strength * (1 + rng.normal(0, 0.03, 3))
    return np.clip(crop * tint * rng.uniform(0.65, 1.15), 0, 255).astype(np.float32)


def random_curves(rng, n):
    """(n, 8) mouth shapes: mixtures of two phonemes, at strengths that speech and dynamic_scale reach."""
    shapes = np.array([np.asarray(shape[0], float) for shape in SHAPE_OF.values()] + [SILENCE[0]])
    one, other = shapes[rng.integers(len(shapes), size=n)], shapes[rng.integers(len(shapes), size=n)]
    mix = rng.random((n, 1))
    curves = (mix * one + (1 - mix) * other) * rng.uniform(0.5, 1.4, (n, 1)) + rng.normal(0, 0.04, (n, len(CURVES)))
    curves[:, JAW] = np.maximum(curves[:, JAW], 0)
    return curves


def draw_target(features, parameters, seam_row, teeth):
    """What one frame should look like, (3, 96, 128): its features (FEATURES, 96, 128) with the mouth drawn in."""
    warped, own, own_mask, mask = features[0:3], features[3:6], features[6], features[7]
    below, above = features[8] / 2, features[9] / 2
    u, v = features[10], features[11]
    gap, _, tongue, _, source_gap, *light = parameters[OFFSETS["paint"] : OFFSETS["paint"] + 8]
    drop = parameters[OFFSETS["teeth"]]
    light = np.array(light)
    c = np.clip(u, -1, 1)
    seam = (1 - c**2) * sum(seam_row[k] * c**k for k in range(5)) + seam_row[5] * c**2
    shown = own_mask > 0.9
    if shown.sum() > 100:  # teeth that the photo hides have the colour of those it shows
        bright = np.percentile(own[:, shown], 75, axis=1)
        teeth = dataclasses.replace(teeth, shade=tuple(np.clip(bright, 0.3, 1.0)))
    inside = paint_interior(u, v, below, above, seam, drop, tongue, light, teeth).transpose(2, 0, 1)
    inside = np.minimum(own * light[:, None, None] + (1 - own_mask) * inside, 1)
    shade = lip_shade(below, above, u, gap, source_gap)
    return warped * (1 + shade) + mask * inside


class Pictures:
    """Batches of (features, target)."""

    def __init__(self, config, portraits):
        self.config, self.portraits = config, portraits
        self.features = MouthFeatures(SIDE * OVERSAMPLING)

    def source(self, rng, portraits):
        """(crop, rig, dentition) of one face."""
        if portraits and rng.random() < self.config.real_share:
            crop, rig = portraits[rng.integers(len(portraits))]
            crop = recolour(rng, crop)
            if rng.random() < 0.5:
                crop, rig = crop[:, ::-1].copy(), mirrored(rig)
            return crop, rig, Dentition()
        open_photo = rng.random() < self.config.open_share
        teeth = random_dentition(rng) if open_photo else Dentition()  # hidden teeth cannot be guessed: a standard set
        rig = random_rig(rng, open_photo)
        return random_face(rng, SIDE, rig, teeth), rig, teeth

    def draw(self, rng, portraits):
        """VIEWS pictures of one face: features (VIEWS, FEATURES, 96, 128) and targets (VIEWS, 3, 96, 128)."""
        crop, rig, teeth = self.source(rng, portraits)
        rig = with_light(rig, crop)
        pose = np.zeros((VIEWS, 6))
        pose[:, :3] = rng.normal(0, 0.01, (VIEWS, 3))
        parameters = frame_parameters(rig, random_curves(rng, VIEWS), pose)
        features = self.features(Tensor(make_texture(crop)), Tensor(parameters)).asnumpy()
        return features, np.stack([draw_target(one, row, rig.seam, teeth) for one, row in zip(features, parameters)])

    def build(self, folder):
        """Draw the training set once: folder/features.npy and targets.npy, float16, mapped from disk."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "features.npy", folder / "targets.npy"]
        if not all(path.is_file() for path in paths):
            shapes = [(self.config.faces * VIEWS, channels, ROI_HEIGHT, ROI_WIDTH) for channels in (FEATURES, 3)]
            parts = [path.with_suffix(".part.npy") for path in paths]
            arrays = [np.lib.format.open_memmap(part, "w+", np.float16, shape) for part, shape in zip(parts, shapes)]
            for i in tqdm(range(self.config.faces), desc="drawing", mininterval=5):
                drawn = self.draw(np.random.default_rng([self.config.loop.seed, 1, i]), self.portraits)
                for array, values in zip(arrays, drawn):
                    array[i * VIEWS : (i + 1) * VIEWS] = values
            for array, part, path in zip(arrays, parts, paths):
                array.flush()
                part.replace(path)
        self.stored = [np.load(path, mmap_mode="r") for path in paths]

    def batch(self, rng, size):
        picked = np.sort(rng.choice(len(self.stored[0]), size, replace=False))
        return tuple(array[picked].astype(np.float32) for array in self.stored)


def mirrored(rig):
    """The rig of the crop flipped left to right."""
    mouth = rig.mouth * np.array([-1, 1, 1, -1, 1]) + np.array([1, 0, 0, 0, 0])
    flip = np.array([1, -1, 1, -1, 1, 1])
    eyes = rig.eyes[::-1] * np.array([-1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1])
    eyes[:, 0] += 1
    brows = rig.brows[::-1] * np.array([-1, 1, 1]) + np.array([1, 0, 0])
    head = rig.head * np.array([-1, 1, 1, 1]) + np.array([1, 0, 0, 0])
    return type(rig)(mouth, rig.source * flip, rig.seam * flip, rig.face, head, eyes, brows, rig.height)


class PaintLoss(nn.Cell):
    """L1 on the picture, more inside the mouth, and L1 on its gradients, which keeps the teeth's edges."""

    def __init__(self, painter, inside_weight, edge_weight):
        super().__init__()
        self.painter = painter
        self.inside_weight = inside_weight
        self.edge_weight = edge_weight

    def construct(self, features, target):
        return self.of(features, self.painter(features), target)

    def of(self, features, painted, target):
        picture = composite(features, painted)
        weight = 1.0 + self.inside_weight * features[:, 7:8]
        error = (picture - target) * weight
        across = error[:, :, :, 1:] - error[:, :, :, :-1]
        down = error[:, :, 1:, :] - error[:, :, :-1, :]
        edges = ops.reduce_mean(ops.abs(across)) + ops.reduce_mean(ops.abs(down))
        return ops.reduce_mean(ops.abs(error)) + self.edge_weight * edges


def draw_faces(pictures, seed, kind, faces=TEST_FACES):
    """[(features, targets)] of made-up faces that no training draws; another kind, other faces."""
    return [pictures.draw(np.random.default_rng([seed, kind, i]), []) for i in range(faces)]


def inside_l1(painter, faces):
    """Mean absolute error (0..1) inside the mouth. painter: features -> painted planes."""
    errors = []
    for features, target in faces:
        picture = composite(Tensor(features), painter(Tensor(features))).asnumpy()
        inside = np.broadcast_to(features[:, 7:8] > 0.5, picture.shape)
        errors.append(np.abs(picture - target)[inside])
    return float(np.mean(np.concatenate(errors)))


def run(config, folder, resume=False):
    """Train and write folder/painter/{model.safetensors,config.json}. The test set: made-up faces of other seeds."""
    folder = Path(folder)
    ms.set_seed(config.loop.seed)
    portraits = real_portraits()
    pictures = Pictures(config, portraits)
    pictures.build(folder)
    painter = Painter(PainterConfig())
    loss = PaintLoss(painter, config.inside_weight, config.edge_weight)
    held_out = draw_faces(pictures, config.loop.seed, HELD_OUT)

    def validate(step):
        return {"test_inside_l1": inside_l1(painter, held_out)}

    last = train(loss, pictures.batch, config.loop, folder, validate, resume, identity_of(config))
    painter.set_train(False)
    save_model(painter, PainterConfig(), folder / "painter")
    return last
