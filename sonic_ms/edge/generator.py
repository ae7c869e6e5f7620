"""sonic-edge as the pipeline sees it: recording -> articulation curves, portrait + curves -> moving squares."""

from pathlib import Path

import numpy as np

from sonic_ms.edge.audio_features import HALO, mel_windows, normalise_mel
from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.rig import frame_parameters
from sonic_ms.edge.texture import make_texture, placement
from sonic_ms.edge.units import EDGE_BATCH, EDGE_FOLDER, EDGE_SIDES, edge_units
from sonic_ms.media import audio


class EdgeModel:
    """The light model.

    folder: holds audio/ and painter/, each with model.safetensors and config.json. engine: an open engine with the
    units of sonic-edge; by default MindSpore on the weights of `folder`. sides: of the squares it renders, in pixels.
    Raises WeightsError for missing, wrong or non-finite weights, EngineError.
    """

    name = "sonic-edge"

    def __init__(self, folder=EDGE_FOLDER, engine=None, sides=EDGE_SIDES):
        if engine is None:
            from sonic_ms.runtime.cells import MindSporeEngine

            engine = MindSporeEngine(edge_units(Path(folder)))
            for unit in ("edge_audio", "edge_render_256"):
                engine.build(unit)  # weights that are missing or wrong are found now, not in the middle of a video
        self.engine, self.sides = engine, sides

    def compile(self, side):
        """Build the graphs for squares of `side` pixels now, so that the first frame does not wait for it."""
        self.engine.prepare(f"edge_render_{side}")

    def articulate(self, samples):
        """float32 mono samples at 16 kHz -> curves, float32 (frame_count, 8), unprocessed."""
        n_frames = audio.frame_count(len(samples))
        mel = normalise_mel(audio.log_mel(samples))
        curves = np.zeros((n_frames, len(CURVES)), np.float32)
        for start, window in mel_windows(mel, n_frames):
            inputs = {"mel": np.ascontiguousarray(window, np.float32)}
            part = self.engine.run("edge_audio", inputs)["curves"][0, :, HALO:-HALO].T
            curves[start : start + len(part)] = part[: n_frames - start]
        return curves

    def render(self, portrait, curves, pose):
        """Yield one moving square a frame, uint8 (side, side, 3).

        portrait: portrait.Portrait; curves: (n, 8); pose: (n, 6) in the order of rig.POSE.
        """
        import cv2

        side = portrait.crop.shape[0]
        rows, columns = placement(portrait.rig.roi, side)
        constants = {"texture": make_texture(portrait.crop), "rows": rows, "columns": columns}
        for first in range(0, len(curves), EDGE_BATCH):
            parameters = frame_parameters(
                portrait.rig, curves[first : first + EDGE_BATCH], pose[first : first + EDGE_BATCH]
            )
            count = len(parameters)
            padded = np.pad(parameters, ((0, EDGE_BATCH - count), (0, 0)), mode="edge")
            frames = self.engine.run(f"edge_render_{side}", {**constants, "parameters": padded})[
                "frames"
            ]  # (3, EDGE_BATCH, side, side)
            planes = (frames + 0.5).astype(np.uint8)
            for i in range(count):
                yield cv2.merge(planes[:, i])
