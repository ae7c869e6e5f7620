"""What `sonic-ms data build` may be told; the defaults are those of configs/data.yaml."""

from dataclasses import dataclass

from sonic_ms.files.config import require


@dataclass(frozen=True)
class DataConfig:
    """Times in seconds, sizes in pixels of the source video.

    resolution: side of the stored square crops. expand_ratio: room around the union face box, share of its size, as
    generate's crop has. min_seconds, max_seconds: of a clip. min_face: height of the face, forehead to chin.
    min_sharpness: variance of the Laplacian of the face scaled to 128 pixels. min_speech: share of frames with voice.
    max_lag: frames by which mouth and sound may differ. min_sync: their correlation.
    """

    resolution: int = 512
    expand_ratio: float = 0.5
    min_seconds: float = 3.0
    max_seconds: float = 10.0
    min_face: int = 96
    min_sharpness: float = 20.0
    min_speech: float = 0.3
    max_lag: int = 3
    min_sync: float = 0.2

    def __post_init__(self):
        checks = (
            ("resolution", self.resolution >= 64 and self.resolution % 64 == 0, "a multiple of 64"),
            ("expand_ratio", 0 <= self.expand_ratio <= 2, "0 to 2"),
            ("min_seconds", self.min_seconds >= 1, "at least 1"),
            ("max_seconds", self.max_seconds >= 2 * self.min_seconds, "at least twice min_seconds"),
            ("min_face", self.min_face >= 1, "at least 1"),
            ("min_sharpness", self.min_sharpness >= 0, "0 or more"),
            ("min_speech", 0 <= self.min_speech <= 1, "0 to 1"),
            ("max_lag", 0 <= self.max_lag <= 8, "0 to 8"),
            ("min_sync", -1 <= self.min_sync <= 1, "-1 to 1"),
        )
        require(self, checks)
