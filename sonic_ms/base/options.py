"""What a user can set for a video by sonic-base."""

from pydantic import model_validator

from sonic_ms.options import Options, option


class BaseOptions(Options):
    """Settings of one video; the seed is of the noise it starts from."""

    min_resolution: int = option(
        512, "short side the networks work at, and of the video", "pixels", ("resolution",), ge=64, le=2048
    )
    lip_sync_correction: bool = option(
        False, "measure and remove a lag between mouth and speech", aliases=("lip_sync_refinement",)
    )
    crop: bool = option(False, "animate a square around the face and paste it back into the photo")
    expand_ratio: float = option(1.0, "with crop: room on each side of the face box, a share of its size", ge=0, le=5)
    inference_steps: int = option(25, "denoising steps", aliases=("steps",), ge=1, le=1000)
    image_guidance: float = option(2.0, "how strictly to follow the photo", ge=0, le=30)
    audio_guidance: float = option(7.5, "how strictly to follow the speech", ge=0, le=30)
    overlap: int = option(0, "frames that two neighbouring windows share", "frames", ge=0, le=1000)
    shift_offset: int = option(7, "frames by which the windows move from step to step", "frames", ge=0, le=1000)
    decode_chunk_size: int = option(8, "frames decoded together", "frames", ge=1, le=64)
    interpolation: bool = option(True, "25 frames a second; without it 12.5")
    batch_branches: bool = option(
        True, "run the three guidance branches at once: faster, three times the memory", off="--one-branch-at-a-time"
    )

    @model_validator(mode="after")
    def _room_needs_crop(self) -> "BaseOptions":
        if "expand_ratio" in self.model_fields_set and not self.crop:
            raise ValueError(
                f"expand_ratio is {self.expand_ratio:g} without crop, which it is for; add crop or leave it out"
            )
        return self
