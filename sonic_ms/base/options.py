"""What a user can set for a video by sonic-base."""

from typing import Any, Literal

from pydantic import model_validator

from sonic_ms.options import Interval, Options, option

# What --quality sets, unless it is given itself. docs/base.md says what each costs and saves.
QUALITY: dict[str, dict[str, Any]] = {
    "best": {},
    "balanced": {"feature_cache": 2, "feature_cache_branch": 1, "guidance_reuse": 2},
    "fast": {
        "feature_cache": 3,
        "feature_cache_branch": 0,
        "guidance_reuse": 3,
        "image_guidance_interval": (0.0, 0.6),
    },
}


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
    quality: Literal["best", "balanced", "fast"] = option(
        "best", "sets the next five options: best computes everything; the others are approximations"
    )
    image_guidance_interval: Interval = option(
        (0.0, 1.0), "shares of the steps between which image_guidance counts; it is 1, and cheaper, elsewhere"
    )
    audio_guidance_interval: Interval = option((0.0, 1.0), "the same for audio_guidance")
    guidance_reuse: int = option(
        1, "steps for which the effect of the photo is used before it is computed again", "steps", ge=1, le=1000
    )
    feature_cache: int = option(
        1, "the whole UNet runs once in so many steps, its finest layers at each", "steps", ge=1, le=1000
    )
    feature_cache_branch: int = option(
        0, "with feature_cache: layers on the way down that run at each step; 1 is more exact and slower", ge=0, le=1
    )
    overlap: int = option(0, "frames that two neighbouring windows share", "frames", ge=0, le=1000)
    shift_offset: int = option(7, "frames by which the windows move from step to step", "frames", ge=0, le=1000)
    decode_chunk_size: int = option(8, "frames decoded together", "frames", ge=1, le=64)
    interpolation: bool = option(True, "25 frames a second; without it 12.5")
    batch_branches: bool = option(
        True, "run the three guidance branches at once: faster, three times the memory", off="--one-branch-at-a-time"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_quality(cls, values: dict[str, Any]) -> dict[str, Any]:
        chosen = values.get("quality", "best")
        return (QUALITY.get(chosen, {}) if isinstance(chosen, str) else {}) | values

    @model_validator(mode="after")
    def _room_needs_crop(self) -> "BaseOptions":
        if "expand_ratio" in self.model_fields_set and not self.crop:
            raise ValueError(
                f"expand_ratio is {self.expand_ratio:g} without crop, which it is for; add crop or leave it out"
            )
        return self


def what_quality_sets(options: BaseOptions) -> str:
    """In words, what --quality chose for these options, and what was given beside it."""
    names = QUALITY[options.quality]

    def word(value: Any) -> str:
        return ",".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)

    return ", ".join(f"{name} {word(getattr(options, name))}" for name in names)
