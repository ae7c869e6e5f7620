"""sonic-edge as the pipeline sees it: recording -> articulation curves, portrait + curves -> moving squares."""

from pathlib import Path

import numpy as np

from sonic_ms import audio
from sonic_ms.models.edge.audio_features import HALO, mel_windows, normalise_mel
from sonic_ms.models.edge.curves import CURVES
from sonic_ms.models.edge.rig import N_PARAMETERS, frame_parameters
from sonic_ms.runtime.engine import check_engine

PRETRAINED = Path(__file__).parent / "pretrained" / "sonic-edge"
BATCH = 8  # frames a graph call


class EdgeModel:
    """The light model. `folder` holds audio/ and painter/, each with model.safetensors and config.json.

    Raises WeightsError for missing, wrong or non-finite weights, EngineError for an unknown engine.
    """

    name = "sonic-edge"

    def __init__(self, folder=PRETRAINED, engine="auto"):
        check_engine(engine)
        from sonic_ms.runtime.mindspore import start

        start()
        from sonic_ms.models.edge.audio_encoder import AudioEncoder, AudioEncoderConfig
        from sonic_ms.models.edge.renderer import Painter, PainterConfig, fold_norms
        from sonic_ms.weights import load_config, load_weights

        folder = Path(folder)
        self._encoder = AudioEncoder(load_config(AudioEncoderConfig, folder / "audio")).set_train(False)
        load_weights(self._encoder, folder / "audio")
        painter = Painter(load_config(PainterConfig, folder / "painter")).set_train(False)
        self._painter = fold_norms(load_weights(painter, folder / "painter"))
        self._engines = {}

    def _engine(self, side):
        """Engine with the renderer for squares of `side` pixels; graphs are built when first needed."""
        if side not in self._engines:
            from sonic_ms.models.edge.renderer import EdgeRenderer
            from sonic_ms.runtime.mindspore import MindSporeEngine

            renderer = EdgeRenderer(self._painter, side).set_train(False)
            self._engines[side] = MindSporeEngine(
                {
                    "edge_audio": (self._encoder, ("mel",), ("curves",)),
                    "edge_render": (renderer, ("texture", "rows", "columns", "parameters"), ("frames",)),
                }
            )
        return self._engines[side]

    def compile(self, side):
        """Build the graphs for squares of `side` pixels now, so that the first frame does not wait for it."""
        from sonic_ms.models.edge.texture import OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH

        zeros = {
            "texture": np.zeros((3, (OVERSAMPLING * side) ** 2), np.float32),
            "rows": np.zeros((side, ROI_HEIGHT), np.float32),
            "columns": np.zeros((ROI_WIDTH, side), np.float32),
            "parameters": np.ones((BATCH, N_PARAMETERS), np.float32),
        }
        self._engine(side).compile("edge_render", zeros)

    def articulate(self, samples):
        """float32 mono samples at 16 kHz -> curves, float32 (frame_count, 8), unprocessed."""
        n_frames = audio.frame_count(len(samples))
        mel = normalise_mel(audio.log_mel(samples))
        engine = next(iter(self._engines.values()), None) or self._engine(256)
        curves = np.zeros((n_frames, len(CURVES)), np.float32)
        for start, window in mel_windows(mel, n_frames):
            inputs = {"mel": np.ascontiguousarray(window, np.float32)}
            part = engine.run("edge_audio", inputs)["curves"][0, :, HALO:-HALO].T
            curves[start : start + len(part)] = part[: n_frames - start]
        return curves

    def render(self, portrait, curves, pose):
        """Yield one moving square a frame, uint8 (side, side, 3).

        portrait: portrait.Portrait; curves: (n, 8); pose: (n, 6) in the order of rig.POSE.
        """
        import cv2

        from sonic_ms.models.edge.texture import make_texture, placement

        side = portrait.crop.shape[0]
        engine = self._engine(side)
        rows, columns = placement(portrait.rig.roi, side)
        constants = {"texture": make_texture(portrait.crop), "rows": rows, "columns": columns}
        for first in range(0, len(curves), BATCH):
            parameters = frame_parameters(portrait.rig, curves[first : first + BATCH], pose[first : first + BATCH])
            count = len(parameters)
            padded = np.pad(parameters, ((0, BATCH - count), (0, 0)), mode="edge")
            frames = engine.run("edge_render", {**constants, "parameters": padded})["frames"]  # (3, BATCH, side, side)
            planes = (frames + 0.5).astype(np.uint8)
            for i in range(count):
                yield cv2.merge(planes[:, i])
