"""Real inputs for the units of a bundle: what the pipeline feeds them for the portrait and speech of the package."""

from pathlib import Path

from sonic_ms.runtime.ort import OnnxEngine

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 1.6  # of speech: ends in a loud syllable


class Recorder:
    """An engine that keeps a copy of the last inputs of every unit it runs."""

    def __init__(self, engine):
        self.engine, self.inputs = engine, {}

    def run(self, unit, inputs):
        self.inputs[unit] = {name: array.copy() for name, array in inputs.items()}
        return self.engine.run(unit, inputs)

    def __getattr__(self, name):
        return getattr(self.engine, name)


def record_inputs(bundle):
    """{unit: {input name: array}} of the units the pipeline ran; others are missing."""
    recorder = Recorder(OnnxEngine(bundle))
    try:
        if bundle.model == "sonic-edge":
            _edge(recorder, bundle)
        else:
            _base(recorder, bundle)
    finally:
        recorder.close()
    return recorder.inputs


def _edge(recorder, bundle):
    from sonic_ms.edge.generator import EdgeModel
    from sonic_ms.pipeline import TalkingModel

    for side in bundle.manifest["gear"]["sides"]:
        model = TalkingModel(EdgeModel(engine=recorder, sides=(side,)))
        _generate(model, EXAMPLES / "portrait.jpg")


def _base(recorder, bundle):
    from sonic_ms.base.generator import BaseModel
    from sonic_ms.base.networks import BundleNetworks
    from sonic_ms.errors import FaceError
    from sonic_ms.media.image import load_image

    height, width = (bundle.manifest["gear"][side] for side in ("height", "width"))
    photo = load_image(EXAMPLES / "portrait.jpg")
    scale = min(photo.shape[:2]) / max(height, width)
    photo = photo[: round(height * scale), : round(width * scale)]  # of the shape the graphs were made for
    options = {"min_resolution": min(height, width), "inference_steps": 2}
    model = BaseModel(BundleNetworks(bundle, recorder))
    try:
        _generate(model, photo, **options)
    except FaceError:  # a detector with random weights
        _generate(model, photo, face_box=(0, 0, *photo.shape[1::-1]), **options)


def _generate(model, photo, **options):
    for _ in model.generate(photo, EXAMPLES / "speech.wav", duration=SECONDS, **options):
        pass
