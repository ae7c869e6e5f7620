"""Curves and poses -> the moving squares of a portrait, on any engine."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sonic_ms.edge.rig import frame_parameters
from sonic_ms.edge.texture import make_texture, place_patch, unpack
from sonic_ms.edge.units import EDGE_BATCH
from sonic_ms.runtime.engine import runs_at_once


class SquareRenderer:
    """Renders the moving square of a portrait with a unit of `batch` frames a call."""

    def __init__(self, engine, scene, unit, batch):
        self.engine, self.scene, self.unit, self.batch = engine, scene, unit, batch
        self.patch = place_patch(scene.rig.roi, scene.crop.shape[0])
        self.constants = {"texture": make_texture(scene.crop), **self.patch.matrices}

    def draw(self, curves, pose):
        """What the graph gives for at most `batch` frames. curves: (n, 8); pose: (n, 6) as in rig.POSE."""
        parameters = frame_parameters(self.scene.rig, curves, pose)
        padded = np.pad(parameters, ((0, self.batch - len(parameters)), (0, 0)), mode="edge")
        outputs = self.engine.run(self.unit, {**self.constants, "parameters": padded})
        return [outputs[name][: len(parameters)] for name in ("square", "patch")]

    def put_together(self, squares, patches):
        """Yield the frames, uint8 (side, side, 3), of what `draw` gave."""
        import cv2

        for square, mouth in zip(squares, patches):
            frame = cv2.cvtColor(unpack(square), cv2.COLOR_BGRA2RGB)
            mouth = cv2.merge((mouth + 0.5).astype(np.uint8))
            if self.scene.tone is not None:
                mouth = self.scene.tone.apply(mouth)  # the only place for new colours
            frame[self.patch.rows, self.patch.columns] = mouth
            yield frame

    def render(self, curves, pose):
        """Squares, uint8 (side, side, 3), of at most `batch` frames; arguments as of `draw`."""
        return self.put_together(*self.draw(curves, pose))


class Squares:
    """The moving squares of a portrait, rendered while they are iterated, EDGE_BATCH at a time.

    curves: (n, 8); pose: (n, 6) in the order of rig.POSE.
    """

    def __init__(self, engine, scene, curves, pose):
        self.engine, self.scene, self.curves, self.pose = engine, scene, curves, pose

    def __iter__(self):
        return self.piece(0, len(self.curves))

    def piece(self, start, stop):
        """Yield the squares of frames start to stop - 1 alone, the same bytes as in the whole: a graph may round a
        frame differently at another place of its batch, so the batches are those of the whole."""
        unit = f"edge_render_{self.scene.crop.shape[0]}"
        renderer = SquareRenderer(self.engine, self.scene, unit, EDGE_BATCH)
        firsts = range(start - start % EDGE_BATCH, stop, EDGE_BATCH)
        batches = [slice(first, first + EDGE_BATCH) for first in firsts]

        def draw(batch):
            return renderer.draw(self.curves[batch], self.pose[batch])

        # Graph calls ahead: whoever takes the frames has work of his own meanwhile.
        calls = runs_at_once(self.engine, unit)
        with ThreadPoolExecutor(calls, "render") as pool:
            coming = deque(pool.submit(draw, batch) for batch in batches[:calls])
            for number, first in enumerate(firsts):
                drawn = coming.popleft().result()
                if number + calls < len(batches):
                    coming.append(pool.submit(draw, batches[number + calls]))
                wanted = slice(max(start - first, 0), stop - first)
                yield from renderer.put_together(*(values[wanted] for values in drawn))
