"""Boxes, sizes and tensors of sonic-base."""

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessor

from sonic_ms.base.prepare import clip_tensor, face_mask, image_tensor, output_size, prepare_picture, process_bbox
from sonic_ms.errors import FaceError


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [((600, 900), 512, (512, 768)), ((1920, 1080), 256, (448, 256)), ((9, 7), 64, (64,) * 2)],
)
def test_sizes_are_multiples_of_64(size, short, expected):
    assert output_size(*size, short) == expected


def test_bbox_is_a_square_inside_the_photo_around_the_face():
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = rng.integers(100, 1500, 2)
        x1, y1 = rng.uniform(0, width - 50), rng.uniform(0, height - 50)
        x2, y2 = rng.uniform(x1 + 10, width), rng.uniform(y1 + 10, height)
        left, top, right, bottom = process_bbox((x1, y1, x2, y2), rng.uniform(0, 2), height, width)
        assert abs((right - left) - (bottom - top)) <= 1  # corners are rounded one by one
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert left <= (x1 + x2) / 2 <= right and top <= (y1 + y2) / 2 <= bottom


def test_mask_is_the_box_grown_by_a_tenth():
    mask = face_mask((40, 20, 60, 60), 100, 80)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max() + 1, rows.min(), rows.max() + 1) == (39, 61, 18, 62)
    assert set(np.unique(mask)) == {0, 255}
    with pytest.raises(FaceError, match="outside"):
        face_mask((200, 20, 240, 60), 100, 80)


def test_clip_input_is_that_of_the_reference(astronaut):
    theirs = CLIPImageProcessor(
        size={"height": 224, "width": 224},
        do_center_crop=False,
        resample=1,  # Lanczos
    )(astronaut[:300], return_tensors="np")["pixel_values"]
    assert np.abs(clip_tensor(astronaut[:300], 224) - theirs).max() <= 2 / 255 / 0.26  # two grey levels of rounding


def test_image_tensor_spans_minus_one_to_one():
    image = np.array([[[0, 127, 255], [255, 0, 0]]], np.uint8)
    tensor = image_tensor(image)
    assert tensor.shape == (1, 3, 1, 2) and tensor[0, :, 0, 0].tolist() == pytest.approx([-1, -1 / 255, 1])


@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_portrait_of_a_photo_that_is_not_square(hopper, crop, keep):
    height, width = hopper.shape[:2]
    portrait = prepare_picture(hopper, (150, 100, 350, 350), 128, crop, 0.5, keep)
    side = 128
    assert portrait.image.shape[:2] == portrait.mask.shape
    assert portrait.image.shape[0] % 64 == 0 and min(portrait.image.shape[:2]) == side
    assert 0.05 < portrait.mask.mean() < 0.6
    if not crop:
        assert portrait.box is None
        assert portrait.frame.shape[1::-1] == (
            (width // 2 * 2, height // 2 * 2) if keep else portrait.image.shape[1::-1]
        )
    else:
        assert portrait.image.shape == (side, side, 3)
        assert portrait.frame.shape[:2] == ((height // 2 * 2, width // 2 * 2) if keep else (150, 128))
        x, y, length = portrait.box
        inside = portrait.frame[y : y + length, x : x + length]
        small = [np.asarray(Image.fromarray(one).resize((32, 32)), float) for one in (inside, portrait.image)]
        assert np.abs(small[0] - small[1]).mean() < 3  # the same part of the photo
