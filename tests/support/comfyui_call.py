"""A run of a node without ComfyUI: what host.Call asks of it, in a folder."""

from pathlib import Path

from integrations.comfyui.host import Call
from integrations.comfyui.process import NodeError
from sonic_ms.errors import SonicError
from sonic_ms.labels.mp4 import read_keys


class Video:
    """VIDEO of a file."""

    def __init__(self, path):
        self.path = path

    def get_stream_source(self):
        return str(self.path)

    def get_dimensions(self):
        return 64, 64


class FakeCall(Call):
    """stop: function that says whether the user interrupted."""

    def __init__(self, folder, stop=lambda: False, prompt=None):
        super().__init__("1", prompt)
        self.folder, self.stop, self.notes, self.steps, self.memory = Path(folder), stop, [], [], 1 << 40
        for name in ("temp", "output"):
            (self.folder / name).mkdir(exist_ok=True)

    def progress(self, done, total):
        self.steps.append((done, total))

    def check(self):
        if self.stop():
            raise InterruptedError

    def note(self, text):
        self.notes.append(text)

    def temporary(self):
        return self.folder / "temp"

    def output(self, prefix, size):
        return self.folder / "output", prefix, 1, ""

    def video(self, path):
        return Video(path)

    def metadata(self, path):
        try:
            return read_keys(path)
        except SonicError as error:
            raise NodeError(f"the video {path} cannot be read ({error})") from None

    def free_memory(self):
        return self.memory
