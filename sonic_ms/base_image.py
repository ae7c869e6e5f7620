"""Image preparation of sonic-base, exactly as the networks were trained: boxes, sizes, CLIP input. numpy and Pillow."""

import numpy as np
from PIL import Image

from sonic_ms.errors import ImageError

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
