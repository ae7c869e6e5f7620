"""Real inputs for the units of a bundle: what the pipeline feeds them for the portrait and speech of the package."""

from pathlib import Path

from sonic_ms.runtime.onnx import OnnxEngine

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 0.4  # of speech; ten frames


class Recorder:
    """An engine that keeps a copy of the first inputs of every unit it runs."""

    def __init__(self, engine):
        self.engine, self.inputs = engine, {}

    def run(self, unit, inputs):
        self.inputs.setdefault(unit, {name: array.copy() for name, array in inputs.items()})
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
    from sonic_ms.edge import EdgeModel
    from sonic_ms.pipeline import TalkingModel

    for side in bundle.manifest["gear"]["sides"]:
        model = TalkingModel(EdgeModel(engine=recorder, sides=(side,)))
        _generate(model, duration=SECONDS)


def _base(recorder, bundle):
    from sonic_ms.base_networks import BundleNetworks
    from sonic_ms.base_pipeline import BaseModel

    _generate(BaseModel(BundleNetworks(bundle, recorder)), duration=SECONDS, inference_steps=2)


def _generate(model, **options):
    video = model.generate(EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav", **options)
    next(iter(video))
