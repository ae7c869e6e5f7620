"""Curves and poses -> the moving squares of a portrait, on any engine."""

import numpy as np

from sonic_ms.edge.rig import frame_parameters
from sonic_ms.edge.texture import make_texture, placement
from sonic_ms.edge.units import EDGE_BATCH


class SquareRenderer:
    """Renders the moving square of a portrait with a unit of `batch` frames a call."""

    def __init__(self, engine, scene, unit, batch):
        self.engine, self.scene, self.unit, self.batch = engine, scene, unit, batch
        side, rig = scene.crop.shape[0], scene.rig
        rows, columns = placement(rig.roi, side)
        self.painted = np.ix_(rows.any(1), columns.any(0))  # the painter's rectangle: the only place for new colours
        self.constants = {"texture": make_texture(scene.crop), "rows": rows, "columns": columns}

    def render(self, curves, pose):
        """Squares, uint8 (side, side, 3), of at most `batch` frames. curves: (n, 8); pose: (n, 6) as in rig.POSE."""
        import cv2

        parameters = frame_parameters(self.scene.rig, curves, pose)
        count = len(parameters)
        padded = np.pad(parameters, ((0, self.batch - count), (0, 0)), mode="edge")
        outputs = self.engine.run(self.unit, {**self.constants, "parameters": padded})
        planes = (outputs["frames"][:, :count] + 0.5).astype(np.uint8)  # (3, count, side, side)
        for i in range(count):
            frame = cv2.merge(planes[:, i])
            if self.scene.tone is not None:
                frame[self.painted] = self.scene.tone.apply(frame[self.painted])
            yield frame


class Squares:
    """The moving squares of a portrait, rendered while they are iterated, EDGE_BATCH at a time.

    curves: (n, 8); pose: (n, 6) in the order of rig.POSE.
    """

    def __init__(self, engine, scene, curves, pose):
        self.engine, self.scene, self.curves, self.pose = engine, scene, curves, pose

    def __iter__(self):
        unit = f"edge_render_{self.scene.crop.shape[0]}"
        renderer = SquareRenderer(self.engine, self.scene, unit, EDGE_BATCH)
        for first in range(0, len(self.curves), EDGE_BATCH):
            batch = slice(first, first + EDGE_BATCH)
            yield from renderer.render(self.curves[batch], self.pose[batch])
