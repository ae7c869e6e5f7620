"""sonic-base's own face detector: YOLO-face through the networks."""

import numpy as np

from sonic_ms.base.boxes import decode, detect, input_size
from sonic_ms.base.prepare import resize
from sonic_ms.face.mesh import Face


class YoloDetector:
    """face.choose.Detector over networks.Networks."""

    def __init__(self, networks):
        self.networks = networks

    def detect(self, rgb):
        """All faces of an image (h, w, 3) uint8, largest first."""
        height, width = rgb.shape[:2]
        size = input_size(width, height)
        small = resize(rgb, size).astype(np.float32).transpose(2, 0, 1)[None] / 255.0
        maps = self.networks.run("yoloface", small)
        found = detect(decode(maps, self.networks.configs["yoloface"]), width / size[0], height / size[1])
        faces = []
        for x1, y1, x2, y2, score in found[:, :5].astype(np.float64).tolist():
            faces.append(Face((x1, y1, x2 - x1, y2 - y1), score))
        return sorted(faces, key=lambda face: -face.box[2] * face.box[3])
