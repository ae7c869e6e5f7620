"""The articulation curves: the language between the audio side and the picture side of sonic-edge.

Eight values a video frame (25 a second). 0 is the mouth at rest with closed lips in every curve.
"""

CURVES = (
    "jaw",  # 0..1 chin drop
    "open",  # 0..1 gap between the lips; below 0 the lips are pressed together (p, b, m)
    "width",  # -1 narrow .. 1 spread
    "round",  # 0..1 lips pushed forward and thicker
    "upper",  # 0..1 upper lip raised, showing teeth
    "lower",  # 0..1 lower lip tucked under the upper teeth (f, v)
    "corners",  # -1 lowered .. 1 raised mouth corners
    "tongue",  # 0..1 tongue tip visible behind the teeth (l, t, d, n, th)
)
JAW, OPEN, WIDTH, ROUND, UPPER, LOWER, CORNERS, TONGUE = range(len(CURVES))
