"""Where the files lie that come with the package."""

from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
DEMO_IMAGE, DEMO_AUDIO = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav"
