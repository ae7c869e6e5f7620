"""Where the files lie that come with the package."""

from pathlib import Path

PRETRAINED = Path(__file__).parents[1] / "pretrained"  # a folder a model, named as the model
EXAMPLES = Path(__file__).parents[1] / "examples"
DEMO_IMAGE, DEMO_AUDIO = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav"
