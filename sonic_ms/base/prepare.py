"""Image preparation of sonic-base, exactly as the networks were trained: boxes, sizes, CLIP input. numpy and Pillow."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from sonic_ms.errors import FaceError
from sonic_ms.media.image import resize_short_side, to_even

MASK_AREA = 1.1  # the face mask is the box, scaled by this about its centre
SIDE_MULTIPLE = 64  # pixels: 8 of the VAE times 8 of the UNet
CLIP_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
CLIP_STD = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)


def process_bbox(box, expand_ratio, height, width):
    """Square crop around a face: box (x1, y1, x2, y2) in pixels of a width x height photo -> 4 ints.

    Each side of the box moves out by expand_ratio of its size and stays in the photo; the result is the largest
    square inside, shifted towards the centre of the face.
    """
    x1, y1, x2, y2 = (float(value) for value in box)
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    grow_x, grow_y = (x2 - x1) * expand_ratio, (y2 - y1) * expand_ratio
    x1, x2 = max(x1 - grow_x, 0), min(x2 + grow_x, width)
    y1, y2 = max(y1 - grow_y, 0), min(y2 + grow_y, height)
    side = min(x2 - x1, y2 - y1)
    left = min(max(centre_x - side / 2, x1), x2 - side)
    top = min(max(centre_y - side / 2, y1), y2 - side)
    return tuple(round(value) for value in (left, top, left + side, top + side))


def output_size(width, height, short_side):
    """Size near that of the photo with its short side at `short_side`, both sides multiples of 64: (width, height)."""
    scale = short_side / min(width, height)
    return tuple(max(1, round(side * scale / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in (width, height))


def face_mask(box, width, height, area=MASK_AREA):
    """White box on black, uint8 (height, width): the face box scaled by `area` about its centre, cut at the border."""
    x1, y1, x2, y2 = box
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    half_x, half_y = (x2 - x1) * area / 2, (y2 - y1) * area / 2
    left, right = (int(np.clip(value, 0, width)) for value in (centre_x - half_x, centre_x + half_x))
    top, bottom = (int(np.clip(value, 0, height)) for value in (centre_y - half_y, centre_y + half_y))
    if right <= left or bottom <= top:
        raise FaceError(f"face box {tuple(box)} lies outside the {width}x{height} photo")
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def resize(image, size, part=None):
    """(h, w) or (h, w, 3) uint8 -> the same at size (width, height), Lanczos. part: (left, top, right, bottom) of the
    image that is shown, in pixels and fractions of them; all by default."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS, part))


def image_tensor(image):
    """(h, w, 3) uint8 -> (1, 3, h, w) float32 in [-1, 1]."""
    return (image.astype(np.float32) / 127.5 - 1.0).transpose(2, 0, 1)[None]


def clip_tensor(image, side):
    """(h, w, 3) uint8 -> CLIP's input (1, 3, side, side): squeezed to a square, normalised."""
    square = resize(image, (side, side)).astype(np.float32) / 255.0
    return ((square - CLIP_MEAN) / CLIP_STD).transpose(2, 0, 1)[None]


@dataclass(frozen=True)
class Picture:
    """The photo as the networks see it.

    image: uint8 (h, w, 3), sides multiples of 64; mask: the face, float32 (h, w) in 0..1. frame: the whole picture at
    output size, uint8. box: (x, y, length) in frame pixels of the square that is animated, None without crop.
    """

    image: np.ndarray
    mask: np.ndarray
    frame: np.ndarray
    box: tuple[int, int, int] | None
    exact: bool = False  # the decoder gives back the square's border only nearly: see media/paste.py


def prepare_picture(photo, box, short_side, crop=False, expand_ratio=1.0, keep_resolution=False):
    """Photo (h, w, 3) uint8 and face box (x1, y1, x2, y2) in its pixels -> Picture.

    short_side: of what the networks see, in pixels. crop: they see the square that `process_bbox` puts around the face.
    keep_resolution: the video has the size of the photo, to even numbers, whatever size the networks work at; else
    `short_side` is that of the video too. Raises FaceError.
    """
    height, width = photo.shape[:2]
    mask = face_mask(box, width, height)
    if not crop:
        size = output_size(width, height, short_side)
        image = resize(photo, size)
        frame = resize(photo, (width // 2 * 2, height // 2 * 2)) if keep_resolution else image
        return Picture(image, _shares(mask, size), frame, None)
    left, top, right, bottom = process_bbox(box, expand_ratio, height, width)
    size = output_size(right - left, bottom - top, short_side)
    frame = to_even(photo) if keep_resolution else resize_short_side(photo, short_side)
    # Whole pixels of the frame first, then what of the photo they show: the square fits back without a shift.
    across, down = frame.shape[1] / width, frame.shape[0] / height
    x, y, length = round(left * across), round(top * down), max(1, round((right - left) * across))
    part = (x / across, y / down, min((x + length) / across, width), min((y + length) / down, height))
    return Picture(resize(photo, size, part), _shares(mask, size, part), frame, (x, y, length))


def _shares(mask, size, part=None):
    return resize(mask, size, part).astype(np.float32) / 255.0
