"""Training pictures for the mouth painter: what the inside of a mouth looks like, and made-up faces around it.

`paint_interior` is a drawing, not a simulation: two rows of teeth in their anatomical proportions (upper ones fixed to
the skull, lower ones to the jaw), gums, tongue, a dark throat, and the shadows of the lips. Lengths are in half mouth
widths (about 25 mm), colours in 0..1. The painter learns it, so it can later be replaced by real footage.
"""

from dataclasses import dataclass

import numpy as np

from sonic_ms.edge.renderer import LOWER_GAPS, UPPER_GAPS
from sonic_ms.edge.rig import CHIN_DROP, SEAM, TERMS, UPPER_TEETH, Rig, lower_teeth, scene_light

UPPER_EDGES = np.array([*UPPER_GAPS, 1.02])
LOWER_EDGES = np.array([*LOWER_GAPS, 0.85])
SKIN_TONES = np.array([
    [0.94, 0.80, 0.71], [0.90, 0.74, 0.64], [0.85, 0.66, 0.53], [0.78, 0.58, 0.44],
    [0.66, 0.46, 0.34], [0.52, 0.35, 0.25], [0.38, 0.25, 0.18], [0.28, 0.18, 0.13],
])  # fmt: skip


@dataclass(frozen=True)
class Dentition:
    """What differs between mouths; place and width of the teeth are those the painter is told."""

    shade: tuple = (0.97, 0.93, 0.85)
    gap_dark: float = 0.25
    tongue: tuple = (0.68, 0.34, 0.33)


def random_dentition(rng):
    warm = rng.uniform(0, 1)
    shade = np.array([0.98, 0.96, 0.92]) * (1 - warm) + np.array([0.90, 0.82, 0.67]) * warm
    return Dentition(tuple(shade), rng.uniform(0.12, 0.35), tuple(np.array(Dentition.tongue) * rng.uniform(0.85, 1.15)))


def _ramp(x, width):
    """0 to 1 around x = 0, `width` wide."""
    return np.clip(x / width + 0.5, 0, 1)


def _row(u, edges):
    """Distance to the nearest gap between teeth, and each pixel's place within its tooth, -1..1."""
    side = np.abs(u)
    index = np.clip(np.searchsorted(edges, side) - 1, 0, len(edges) - 2)
    left, right = edges[index], edges[index + 1]
    place = np.clip((side - left) / (right - left) * 2 - 1, -1, 1)
    return np.minimum(np.abs(side - left), np.abs(right - side)), place


def paint_interior(u, v, below, above, seam, drop, tongue, light, teeth):
    """The inside of the mouth, (h, w, 3).

    u, v: mouth-frame coordinates; below, above: distance to the upper and lower lip; seam: v of the closed lips' line
    (h, w); drop: how far below it the lower teeth end (rig.lower_teeth); tongue: curve value; light: (3,) brightness
    and tint of the scene, 1 = well lit; teeth: Dentition.
    """
    depth = np.clip(np.minimum(below, above) / 0.2, 0, 1)[..., None]
    throat = np.array([0.42, 0.17, 0.15]) * (1 - depth) + np.array([0.15, 0.05, 0.05]) * depth
    image = np.broadcast_to(throat, (*u.shape, 3)).copy()

    lower_edge = seam + drop + 0.10 * u**2
    # it does not follow the jaw all the way; its tip rises to the upper teeth, narrower, and catches more light there
    tongue_top = seam + 0.6 * drop + 0.02 - 0.3 * tongue + (0.3 + 0.5 * tongue) * u**2
    form = np.clip((v - tongue_top) / 0.25, 0, 1)[..., None]
    first = 0.5 + 0.3 * tongue
    tongue_colour = np.array(teeth.tongue) * (first + (1 - first) * form)
    groove = 0.18 * (1 - 0.8 * np.clip(tongue, 0, 1))  # in the middle; a raised tip is smooth
    tongue_colour *= (1 - groove * np.exp(-((u / 0.05) ** 2)))[..., None]
    on_tongue = _ramp(v - tongue_top, 0.06) * _ramp(0.72 - np.abs(u), 0.15)
    over = on_tongue[..., None]
    image = image * (1 - over) + tongue_colour * over

    gap, place = _row(u, LOWER_EDGES)
    edge = lower_edge + 0.02 * place**4
    colour = 0.88 * np.array(teeth.shade) * (1 - teeth.gap_dark * np.exp(-((gap / 0.026) ** 2)))[..., None]
    colour = colour * (0.86 + 0.14 * np.cos(place * 1.4))[..., None]
    over = _ramp(v - edge, 0.03) * _ramp(0.68 - np.abs(u), 0.08) * _ramp(edge + 0.32 - v, 0.05)
    tip = np.clip((tongue - 0.6) / 0.3, 0, 1) * on_tongue * _ramp(0.38 - np.abs(u), 0.2) * _ramp(edge + 0.1 - v, 0.08)
    over = (over * (1 - tip))[..., None]  # th: the tip lies on the lower teeth
    image = image * (1 - over) + colour * over

    gap, place = _row(u, UPPER_EDGES)
    lengths = np.interp(np.abs(u), [0, 0.17, 0.45, 0.68, 1.0], [0.0, 0.0, -0.025, -0.005, -0.05])
    edge = seam + UPPER_TEETH + lengths - 0.05 * u**2 - 0.022 * place**4
    colour = np.array(teeth.shade) * (1 - teeth.gap_dark * np.exp(-((gap / 0.026) ** 2)))[..., None]
    colour = colour * (0.86 + 0.14 * np.cos(place * 1.4))[..., None]
    colour = colour * (1 - 0.12 * np.clip((v - edge + 0.12) / 0.12, 0, 1))[..., None]  # thin edges let the dark through
    gum = _ramp(edge - 0.40 - v, 0.05)[..., None]
    colour = colour * (1 - gum) + np.array([0.78, 0.47, 0.45]) * gum
    over = (_ramp(edge - v, 0.03) * _ramp(0.98 - np.abs(u), 0.1))[..., None]
    image = image * (1 - over) + colour * over

    arch = 0.25 + 0.75 * np.exp(-((np.abs(u) / 0.82) ** 3.5))
    # the upper lip shades what lies behind it; the lower one lies in the light
    shadow = (0.36 * np.exp(-np.maximum(below, 0) / 0.045), 0.1 * np.exp(-np.maximum(above, 0) / 0.04))
    dark = arch * (1 - shadow[0]) * (1 - shadow[1])
    warmth = np.array([0.55, 1.1, 1.2])  # light that reaches the shade of a lip has passed through it: it is red
    return np.clip(image * np.maximum(dark, 1e-3)[..., None] ** warmth * light, 0, 1)


def lip_shade(below, above, u, gap, source_gap):
    """Relative darkening of the lips, (h, w): the wet inner rim of an opening, and the line between closed lips where
    the photo has none because its mouth was open."""
    inside = np.clip(1.02 - np.abs(u), 0, 0.1) / 0.1
    rim = 0.16 * np.exp(-np.maximum(-below, 0) / 0.05) * (below < above)
    rim = rim + 0.06 * np.exp(-np.maximum(-above, 0) / 0.05) * (below >= above)
    rim = -np.clip(gap / 0.3, 0, 1) * rim
    closed = np.clip(1 - gap / 0.05, 0, 1) * np.clip(source_gap / 0.12, 0, 1)
    line = -0.55 * closed * np.exp(-(((below - above) / 2 / 0.022) ** 2))
    return (rim + line) * inside


def _contour(c0, c1=0.0, c2=0.0, c4=0.0):
    return np.array([c0, c1, c2, 0.0, c4, 0.0])


def random_rig(rng, open_photo):
    """A face with the mouth near the middle of the crop; lips closed, or parted as in a smile or in speech."""
    half = rng.uniform(0.10, 0.17)
    roll = rng.normal(0, 0.12)
    bow = rng.uniform(-0.15, 0.2)  # a closed mouth's line: below or above the corners
    gap = rng.uniform(0.12, 0.55) if open_photo else 0.0
    skew = rng.normal(0, 0.02)
    seam = _contour(bow, skew, rng.normal(0, 0.03))
    upper = seam - SEAM * gap * _contour(1, 0, 0.3)
    lower = seam + (1 - SEAM) * gap * _contour(1, 0, 0.3)
    thick_upper, thick_lower = rng.uniform(0.12, 0.32), rng.uniform(0.2, 0.42)
    source = np.stack([
        upper - thick_upper * _contour(1, 0, rng.uniform(0, 0.4), rng.uniform(-0.3, 0.2)), upper, lower,
        lower + thick_lower * _contour(1, 0, rng.uniform(-0.2, 0.3)),
    ])  # fmt: skip
    centre = rng.uniform(0.46, 0.54, 2)
    shape = np.array([-rng.uniform(0.5, 0.75), rng.uniform(1.35, 1.8), rng.uniform(0.1, 0.4), rng.uniform(1.4, 2), 1.3])
    head = np.array([0.5, 0.3, 0.5, 0.7])
    eye = np.array([0, 0, 1, 0, 0.05, -0.3, 0, 0, 0.15, 0, 0], float)
    eyes = np.stack([eye, eye])
    eyes[:, :2] = [[0.35, 0.1], [0.65, 0.1]]
    brows = np.array([[0.35, 0.03, 0.05], [0.65, 0.03, 0.05]])
    mouth = np.array([*centre, np.cos(roll), np.sin(roll), half])
    return Rig(mouth, source, seam, shape, head, eyes, brows, 6.0 * half)


def random_face(rng, side, rig, teeth):
    """A made-up lower face, (side, side, 3) float32 in 0..255, whose lips follow rig.source exactly."""
    import cv2

    grid = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(grid, grid)
    cx, cy, cos, sin, half = rig.mouth
    dx, dy = (x - cx) / half, (y - cy) / half
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    c = np.clip(u, -1, 1)
    arch = 1 - c**2
    basis = np.stack([arch * c**k for k in range(5)] + [c**2])
    outer_upper, upper, lower, outer_lower = np.tensordot(rig.source, basis[:TERMS], 1)
    seam = np.tensordot(rig.seam, basis, 1)
    beyond = 2 * np.maximum(np.abs(u) - 0.98, 0)

    def blur_noise(scale):
        noise = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), scale)
        return noise / (noise.std() + 1e-9)

    tone = SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.85, 1.1) * (1 + rng.normal(0, 0.06, 3))
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.25) * (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)) * 2
    form = 1 - 0.06 * u**2 + 0.03 * blur_noise(side / 16) + 0.015 * blur_noise(2) + 0.012 * blur_noise(0.7)
    chin = rig.face[1]
    form = form - 0.22 * np.exp(-(((v - outer_lower - 0.14) / 0.12) ** 2)) * np.exp(-((u / 0.7) ** 2))  # under the lip
    form = form - 0.25 * _ramp(v - chin, 0.3)
    for sign in (-1, 1):  # the folds from nose to mouth
        fold = u - sign * (0.75 + 0.45 * np.clip((v - rig.face[0]) / 0.8, 0, 1.4))
        reach = _ramp(v - rig.face[0], 0.3) * _ramp(0.4 - v, 0.4)
        form = form - rng.uniform(0, 0.18) * np.exp(-((fold / 0.07) ** 2)) * reach
    nostrils = sum(np.exp(-(((u - s * 0.2) / 0.09) ** 2) - (((v - rig.face[0] + 0.08) / 0.05) ** 2)) for s in (-1, 1))
    form = form - 0.5 * np.clip(nostrils, 0, 1)
    if rng.random() < 0.3:  # stubble or beard
        area = np.clip(_ramp(v - rig.face[0] - 0.15, 0.3), 0, 1) * _ramp(2.0 - np.abs(u), 0.4)
        form = form - rng.uniform(0.05, 0.5) * area * np.clip(0.7 + 0.3 * blur_noise(0.8), 0, 1.3)
    image = tone * (form * light)[..., None]

    lip_tone = tone * np.array([0.88, 0.62, 0.62]) * rng.uniform(0.8, 1.1)
    if rng.random() < 0.25:
        lip_tone = np.array([rng.uniform(0.45, 0.85), rng.uniform(0.12, 0.45), rng.uniform(0.15, 0.4)])
    texture = 1 + 0.06 * np.sin(u * rng.uniform(40, 60) + 3 * blur_noise(6)) * arch + 0.03 * blur_noise(0.8)
    up_place = np.clip((v - outer_upper) / np.maximum(upper - outer_upper, 0.03), 0, 1)
    low_place = np.clip((v - lower) / np.maximum(outer_lower - lower, 0.03), 0, 1)
    lip_form = np.where(v < seam, 0.95 - 0.3 * up_place, 0.75 + 0.35 * np.sin(np.pi * np.clip(low_place, 0, 1)))
    gloss = rng.uniform(0, 0.25) * np.exp(-(((low_place - 0.4) / 0.12) ** 2)) * np.exp(-((u / 0.35) ** 2)) * (v > seam)
    lips = lip_tone * (lip_form * texture * light)[..., None] + gloss[..., None]
    soft = rng.uniform(0.03, 0.09)
    on_lips = _ramp(v - outer_upper - beyond, soft) * _ramp(outer_lower - v - beyond, soft)
    image = image * (1 - on_lips[..., None]) + lips * on_lips[..., None]

    below, above = v - upper - beyond, lower - v - beyond
    gap = float(rig.source[2, 0] - rig.source[1, 0])
    if gap > 0:
        drop = lower_teeth(CHIN_DROP * gap * 0.9, (1 - SEAM) * gap)
        inside = paint_interior(u, v, below, above, seam, drop, rng.uniform(0, 0.4), scene_light(tone), teeth)
        mask = (_ramp(below, 0.04) * _ramp(above, 0.04))[..., None]
        image = image * (1 - mask) + inside * mask
    else:
        line = np.exp(-(((v - seam) / 0.03) ** 2)) * _ramp(1.0 - np.abs(u), 0.1)
        image *= (1 - rng.uniform(0.3, 0.6) * line)[..., None]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.9)) + rng.normal(0, rng.uniform(0, 0.015), image.shape)
    return (np.clip(image * rng.uniform(0.75, 1.1), 0, 1) * 255).astype(np.float32)
