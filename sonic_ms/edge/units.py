"""Every graph of sonic-edge, written down once."""

from pathlib import Path

from sonic_ms.edge.audio_features import MEL_PER_FRAME, WINDOW
from sonic_ms.edge.heard import HEARD, AudioEncoderConfig
from sonic_ms.edge.rig import N_PARAMETERS
from sonic_ms.edge.texture import OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH
from sonic_ms.files.weights import load_config, load_weights
from sonic_ms.runtime.unit import Tensor, Unit

NAME = "sonic-edge"
NETWORKS = ("audio", "painter")  # folders of a model
EDGE_FOLDER = Path(__file__).parents[1] / "pretrained" / "sonic-edge"
EDGE_SIDES = (256, 384, 512, 768, 1024)  # pixels of the moving square that graphs exist for
EDGE_BATCH = 8  # frames a graph call
N_MELS = 80


def audio_config(folder=EDGE_FOLDER):
    """AudioEncoderConfig of a model's folder. Raises InputMissingError, WeightsError."""
    return load_config(AudioEncoderConfig, Path(folder) / "audio")


def add_delta(painter, delta):
    """Add a delta.Delta to a Painter with folded norms."""
    from mindspore import Tensor as Values

    parameters = dict(painter.parameters_and_names())
    for name, array in delta.added({name: p.asnumpy().copy() for name, p in parameters.items()}).items():
        parameters[name].set_data(Values(array))


def edge_units(folder=EDGE_FOLDER, sides=EDGE_SIDES, precision="fp32", delta=None):
    """{name: Unit} of sonic-edge: the audio encoder, and a renderer for each side of the moving square in pixels.

    precision: "fp16" halves the painter's weights and activations; the flow stays float32, since a texture has more
    texels than a half can count, and so does the encoder, which costs next to nothing. delta: delta.Delta added to the
    painter.
    """
    folder = Path(folder)
    cells = {}

    def painter():
        if "painter" not in cells:
            from sonic_ms.edge.renderer import Painter, PainterConfig, fold_norms

            painter = Painter(load_config(PainterConfig, folder / "painter")).set_train(False)
            cells["painter"] = fold_norms(load_weights(painter, folder / "painter"))
            if delta:
                add_delta(cells["painter"], delta)
            cells["painter"].set_precision(precision)
        return cells["painter"]

    def encoder():
        from sonic_ms.edge.audio_encoder import AudioEncoder

        encoder = AudioEncoder(audio_config(folder)).set_train(False)
        return load_weights(encoder, folder / "audio")

    def renderer(side):
        def build():
            from sonic_ms.edge.renderer import EdgeRenderer

            return EdgeRenderer(painter(), side).set_train(False)

        return build

    mel = Tensor("mel", (1, N_MELS, MEL_PER_FRAME * WINDOW))
    units = [Unit("edge_audio", (mel,), (Tensor("heard", (1, len(HEARD), WINDOW)),), encoder)]
    for side in sides:
        inputs = (
            Tensor("texture", (3, (OVERSAMPLING * side) ** 2)),
            Tensor("rows", (side, ROI_HEIGHT)),
            Tensor("columns", (ROI_WIDTH, side)),
            Tensor("parameters", (EDGE_BATCH, N_PARAMETERS)),
        )
        outputs = (Tensor("frames", (3, EDGE_BATCH, side, side)),)
        units.append(Unit(f"edge_render_{side}", inputs, outputs, renderer(side)))
    return {unit.name: unit for unit in units}
