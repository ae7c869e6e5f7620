"""What the renderer gets from the host once a photo: the texture it samples, and where the rectangle of the painter is.

NumPy, no MindSpore.
"""

import numpy as np

ROI_HEIGHT, ROI_WIDTH = 96, 128  # pixels of the painter's rectangle
OVERSAMPLING = 4  # texels a crop pixel: the nearest texel is at most 1/8 pixel away


def make_texture(crop):
    """(R, R, 3) uint8 or float32 RGB in 0..255 -> float32 (3, (4R)^2) in 0..255, the photo the renderer samples.

    Texels are four times as dense as pixels and every fourth one is a pixel: an unmoved pixel comes back unchanged, a
    moved one is off by at most 1/8 pixel and stays as sharp as Lanczos interpolation leaves it. One gather a pixel
    replaces the four and the blending of a bilinear lookup, which cost four times as much on a CPU.
    """
    import cv2

    side = crop.shape[0] * OVERSAMPLING
    to_crop = np.array([[1 / OVERSAMPLING, 0, 0], [0, 1 / OVERSAMPLING, 0]])
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    dense = cv2.warpAffine(crop, to_crop, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    planes = np.ascontiguousarray(dense.transpose(2, 0, 1), np.float32)
    return planes.reshape(3, side * side)


def placement(roi, side):
    """Matrices that put the painter's rectangle into a crop of `side` pixels: rows (side, 96), columns (128, side).

    roi: (x, y, w, h) in crop units. Bilinear; pixels outside the rectangle get zero weight.
    """

    def axis(start, length, count):
        position = ((np.arange(side) + 0.5) / side - start) / length * count - 0.5
        distance = np.abs(position[:, None] - np.arange(count))
        return np.maximum(0, 1 - distance).astype(np.float32)

    return axis(roi[1], roi[3], ROI_HEIGHT), np.ascontiguousarray(axis(roi[0], roi[2], ROI_WIDTH).T)
