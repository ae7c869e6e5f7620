"""sonic-edge in onnxruntime without an export: graphs that come with the package, weights from a model's folder.

A first frame comes in a second or two, where MindSpore compiles for ten, and MindSpore is not imported at all.
`python -m bench.make_graphs` writes the graphs.
"""

from pathlib import Path

import numpy as np

from sonic_ms.edge.units import EDGE_FOLDER, EDGE_SIDES, LIVE_SIDES, LIVE_WINDOW, NETWORKS, edge_units
from sonic_ms.errors import WeightsError
from sonic_ms.files.weights import MODEL_FILE, TensorFile, summary
from sonic_ms.runtime.ort import OnnxEngine

GRAPHS = EDGE_FOLDER / "graphs"
EPSILON = 1e-5  # of MindSpore's BatchNorm2d


class ShippedGraphs:
    """What OnnxEngine reads in place of a bundle. folder: of the weights; delta: Delta added to its painter."""

    def __init__(self, folder, sides=EDGE_SIDES, delta=None):
        self.folder, self.units, self.delta = Path(folder), edge_units(folder, sides, live=LIVE_SIDES), delta

    def path(self, unit, kind):
        return GRAPHS / f"{unit}.{kind}"

    def weights(self, unit):
        return weights_of(self.folder, unit, self.delta)


def open_shipped(folder=EDGE_FOLDER, delta=None):
    """OnnxEngine with the weights of a folder and a Delta. Raises EngineError without a fitting onnxruntime,
    WeightsError."""
    check_weights(folder)
    return OnnxEngine(ShippedGraphs(folder, delta=delta))


def fits(folder):
    """Whether a folder's networks have the sizes of the graphs. Raises InputMissingError, WeightsError."""
    return all(_shapes(Path(folder) / name) == _shapes(EDGE_FOLDER / name) for name in NETWORKS)


def check_weights(folder):
    """Raise WeightsError for other sizes than the graphs have, and for values that are not finite."""
    if not fits(folder):
        raise WeightsError(f"{folder} has networks of other sizes than the shipped sonic-edge; use --engine mindspore")
    for name in NETWORKS:
        path = Path(folder) / name / MODEL_FILE
        with TensorFile(path) as file:
            broken = [tensor for tensor in file.shapes if not np.isfinite(file.read(tensor)).all()]
        if broken:
            raise WeightsError(f"{path} holds values that are not finite: {summary(broken)}")


def weights_of(folder, unit, delta=None):
    """{initializer of the graph: float32 array}: the parameters of an encoder, `edge_..._audio`, or of a renderer."""
    audio = unit.endswith("audio")
    with TensorFile(Path(folder) / ("audio" if audio else "painter") / MODEL_FILE) as file:
        tensors = {name: np.asarray(file.read(name), np.float32) for name in file.shapes}
    if unit == "edge_live_audio":
        positions = "whisper.position_embedding"
        return {**tensors, positions: np.ascontiguousarray(tensors[positions][: 2 * LIVE_WINDOW])}
    if audio:
        return tensors
    folded = fold_norms(tensors)
    return {f"painter.{name}": array for name, array in (delta.added(folded) if delta else folded).items()}


def fold_norms(tensors):
    """The painter's tensors with every normalisation written into its convolution, as edge.renderer.fold_norms does."""
    folded = {name: array for name, array in tensors.items() if ".norm." not in name}
    for name in [name for name in tensors if name.endswith(".norm.gamma")]:
        block = name.removesuffix(".norm.gamma")
        norm = {part: tensors[f"{block}.norm.{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")}
        scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + np.float32(EPSILON))
        folded[f"{block}.conv.weight"] = tensors[f"{block}.conv.weight"] * scale[:, None, None, None]
        folded[f"{block}.conv.bias"] = (tensors[f"{block}.conv.bias"] - norm["moving_mean"]) * scale + norm["beta"]
    return folded


def _shapes(folder):
    with TensorFile(folder / MODEL_FILE) as file:
        return dict(file.shapes)
