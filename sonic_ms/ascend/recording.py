"""Real inputs for the units of a bundle: what the pipeline feeds them for the portrait and speech of the package."""

from sonic_ms.errors import FaceError
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.media.image import load_image
from sonic_ms.pipeline import load_bundle
from sonic_ms.runtime.ort import OnnxEngine

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
    photo = load_image(DEMO_IMAGE)
    gear = bundle.manifest["gear"]
    try:
        if "sides" in gear:
            for side in gear["sides"]:
                _generate(load_bundle(bundle, recorder, sides=(side,)), photo)
        else:
            _record_picture(load_bundle(bundle, recorder), photo, gear["height"], gear["width"])
    finally:
        recorder.close()
    return recorder.inputs


def _record_picture(model, photo, height, width):
    """A video of the one size that graphs were made for."""
    scale = min(photo.shape[:2]) / max(height, width)
    photo = photo[: round(height * scale), : round(width * scale)]
    options = {"min_resolution": min(height, width), "inference_steps": 2}
    try:
        _generate(model, photo, **options)
    except FaceError:  # a detector with random weights
        _generate(model, photo, face_box=(0.0, 0.0, *map(float, photo.shape[1::-1])), **options)


def _generate(model, photo, **options):
    for _ in model.generate(photo, DEMO_AUDIO, duration=SECONDS, **options):
        pass
