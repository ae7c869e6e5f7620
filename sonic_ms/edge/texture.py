"""What the renderer gets from the host once a photo: the texture it samples, and where the mouth is.

A colour is one whole number, red * 65536 + green * 256 + blue, which float32 holds exactly: a look-up fetches it at
once, and as a little-endian int32 it is the bytes blue, green, red, 0. NumPy, no MindSpore.
"""

from dataclasses import dataclass

import numpy as np

ROI_HEIGHT, ROI_WIDTH = 96, 128  # pixels of the painter's rectangle
OVERSAMPLING = 4  # texels a crop pixel: the nearest texel is at most 1/8 pixel away
COARSE = 96  # nodes of the flow over the whole crop, each way: smooth but for the lids, which need this many
PATCH_HEIGHT, PATCH_WIDTH = 9 / 32, 3 / 8  # shares of the square's side: the patch holds the painter's rectangle


def make_texture(crop):
    """(R, R, 3) uint8 or float32 RGB in 0..255 -> float32 ((4R)^2,) of packed colours, the photo the renderer samples.

    Texels are four times as dense as pixels and every fourth one is a pixel: an unmoved pixel comes back unchanged, a
    moved one is off by at most 1/8 pixel and stays as sharp as Lanczos interpolation leaves it. One gather a pixel
    replaces the four and the blending of a bilinear lookup, which cost four times as much on a CPU.
    """
    import cv2

    side = crop.shape[0] * OVERSAMPLING
    to_crop = np.array([[1 / OVERSAMPLING, 0, 0], [0, 1 / OVERSAMPLING, 0]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    dense = cv2.warpAffine(crop, to_crop, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    red, green, blue = cv2.split(dense if dense.dtype == np.uint8 else np.clip(np.round(dense), 0, 255))
    packed = red.astype(np.float32)
    for plane in (green, blue):
        packed = packed * 256 + plane
    return packed.reshape(-1)


def unpack(colours):
    """Packed colours, int32 (..., h, w) -> uint8 (..., h, w, 4): blue, green, red and 0."""
    return colours.astype("<i4", copy=False)[..., None].view(np.uint8)


def patch_size(side):
    """(height, width) in pixels of the patch in a square of `side` pixels."""
    return round(side * PATCH_HEIGHT), round(side * PATCH_WIDTH)


@dataclass(frozen=True)
class Patch:
    """Where in a square the mouth is drawn. rows, columns: slices of the square. matrices: the renderer's inputs that
    enlarge to the patch what it computes elsewhere: rows (P, 96) and columns (128, Q) the painter's rectangle,
    field_rows (P, COARSE) and field_columns (COARSE, Q) the flow."""

    rows: slice
    columns: slice
    matrices: dict[str, np.ndarray]


def place_patch(roi, side):
    """Patch of a square of `side` pixels around the painter's rectangle. roi: (x, y, w, h) in crop units, not larger
    than the patch. Bilinear; pixels outside the rectangle get no weight."""

    def axis(start, length, count, size):
        first = int(np.clip(round((start + length / 2) * side - size / 2), 0, side - size))
        pixels = slice(first, first + size)
        position = ((np.arange(side)[pixels] + 0.5) / side - start) / length * count - 0.5
        distance = np.abs(position[:, None] - np.arange(count))
        return pixels, np.maximum(0, 1 - distance).astype(np.float32), enlarge_matrix(COARSE, side)[pixels]

    height, width = patch_size(side)
    rows, paint_rows, field_rows = axis(roi[1], roi[3], ROI_HEIGHT, height)
    columns, paint_columns, field_columns = axis(roi[0], roi[2], ROI_WIDTH, width)
    matrices = {
        "rows": paint_rows,
        "columns": np.ascontiguousarray(paint_columns.T),
        "field_rows": np.ascontiguousarray(field_rows),
        "field_columns": np.ascontiguousarray(field_columns.T),
    }
    return Patch(rows, columns, matrices)


def enlarge_matrix(small, large):
    """(large, small) linear interpolation of `small` nodes, from the first to the last of `large` pixels: a ramp stays
    one, so that an identity flow is exact, and nothing lies beyond its nodes."""
    position = np.arange(large) * ((small - 1) / (large - 1))
    left = np.minimum(position.astype(int), small - 2)
    weight = position - left
    matrix = np.zeros((large, small), np.float32)
    matrix[np.arange(large), left] = 1 - weight
    matrix[np.arange(large), left + 1] = weight
    return matrix
