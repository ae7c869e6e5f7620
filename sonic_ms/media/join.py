"""Pieces of a video, encoded apart, as one file: their pictures are copied, not encoded again."""

from pathlib import Path

from sonic_ms.errors import OutputError
from sonic_ms.media.video import VideoWriter


class Joiner(VideoWriter):
    """Context manager like VideoWriter, which takes whole pieces in place of frames: files that VideoWriter wrote, of
    one size and rate, without sound. A piece begins with a picture that needs no other, so nothing changes in it.
    """

    def _pictures_in(self, fps):
        return ["-f", "concat", "-safe", "0", "-protocol_whitelist", "file,pipe"]

    def _pictures_out(self, crf):
        return ["-c:v", "copy"]

    def add(self, path, frames):
        """Append a piece that holds so many frames. Raises OutputError."""
        name = str(Path(path).absolute()).replace("'", "'\\''")
        if "\n" in name:
            raise OutputError(f"output {self.path}: a piece has a line break in its name; choose another folder")
        try:
            self._process.stdin.write(f"file 'file:{name}'\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            self._process.wait()
            raise self._failed() from error
        self.frames += frames
