"""Every graph of sonic-edge, written down once."""

from dataclasses import replace
from pathlib import Path

from sonic_ms.edge.audio_features import MEL_PER_FRAME, WINDOW
from sonic_ms.edge.heard import HEARD, AudioEncoderConfig
from sonic_ms.edge.rig import N_PARAMETERS
from sonic_ms.edge.texture import COARSE, OVERSAMPLING, ROI_HEIGHT, ROI_WIDTH, patch_size
from sonic_ms.files.reading import read_json
from sonic_ms.files.shipped import PRETRAINED
from sonic_ms.files.weights import CONFIG_FILE, load_config, load_weights
from sonic_ms.runtime.unit import Tensor, Unit

NAME = "sonic-edge"
NETWORKS = ("audio", "painter")  # folders of a model
EDGE_FOLDER = PRETRAINED / "sonic-edge"
EDGE_SIDES = (256, 384, 512, 768, 1024)  # pixels of the moving square that graphs exist for
EDGE_BATCH = 8  # frames a graph call
N_MELS = 80
LIVE_WINDOW = 50  # video frames that the encoder sees at once while the speech comes in
LIVE_SIDES = (256, 384, 512)  # of the moving squares that are drawn frame by frame; larger heads are enlarged


def audio_config(folder=EDGE_FOLDER):
    """AudioEncoderConfig of a model's folder. Raises InputMissingError, WeightsError."""
    return load_config(AudioEncoderConfig, Path(folder) / "audio")


def configs(folder=EDGE_FOLDER):
    """Configs of a model's networks as they are written, {network: dict}. Raises InputMissingError, WeightsError."""
    return {name: read_json(Path(folder) / name / CONFIG_FILE, "JSON") for name in NETWORKS}


def add_delta(painter, delta):
    """Add a delta.Delta to a Painter with folded norms."""
    from mindspore import Tensor as Values

    parameters = dict(painter.parameters_and_names())
    for name, array in delta.added({name: p.asnumpy().copy() for name, p in parameters.items()}).items():
        parameters[name].set_data(Values(array))


def edge_units(folder=EDGE_FOLDER, sides=EDGE_SIDES, precision="fp32", live=(), delta=None):
    """{name: Unit} of sonic-edge: the audio encoder, and a renderer for each side of the moving square in pixels.

    live: sides for which there is a renderer of single frames too, and with them an encoder of LIVE_WINDOW frames.

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

    def live_encoder():
        from sonic_ms.edge.audio_encoder import AudioEncoder, first_positions

        config = audio_config(folder)
        whisper = replace(config.whisper, max_source_positions=2 * LIVE_WINDOW)
        return first_positions(encoder(), AudioEncoder(replace(config, whisper=whisper)).set_train(False))

    def renderer(side):
        def build():
            from sonic_ms.edge.renderer import EdgeRenderer

            return EdgeRenderer(painter(), side).set_train(False)

        return build

    def hears(name, window, build, threads=0):
        mel = Tensor("mel", (1, N_MELS, MEL_PER_FRAME * window))
        return Unit(name, (mel,), (Tensor("heard", (1, len(HEARD), window)),), build, threads)

    def renders(name, side, batch, threads=0):
        height, width = patch_size(side)
        inputs = (
            Tensor("texture", ((OVERSAMPLING * side) ** 2,)),
            Tensor("rows", (height, ROI_HEIGHT)),
            Tensor("columns", (ROI_WIDTH, width)),
            Tensor("field_rows", (height, COARSE)),
            Tensor("field_columns", (COARSE, width)),
            Tensor("parameters", (batch, N_PARAMETERS)),
        )
        outputs = (
            Tensor("square", (batch, side, side), "int32"),
            Tensor("patch", (batch, 3, height, width)),
        )
        return Unit(name, inputs, outputs, renderer(side), threads)

    units = [hears("edge_audio", WINDOW, encoder)]
    units += [renders(f"edge_render_{side}", side, EDGE_BATCH, threads=1) for side in sides]
    if live:
        units += [hears("edge_live_audio", LIVE_WINDOW, live_encoder, threads=1)]
        units += [renders(f"edge_live_{side}", side, 1, threads=1) for side in live]
    return {unit.name: unit for unit in units}
