"""What a user can set for a video by sonic-edge."""

from sonic_ms.options import Options, option


class EdgeOptions(Options):
    """Settings of one video; the seed is of blinks and head motion."""

    expand_ratio: float = option(0.2, "room around the face that may move, a share of its size", ge=0, le=2)
    smooth_motion: bool = option(
        False, "smooth the mouth over time; lip closures stay sharp", aliases=("temporal_smoothing",)
    )
