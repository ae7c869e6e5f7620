"""Images: every kind of file ends as upright 8-bit RGB; bad ones each have their message."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from sonic_ms.errors import ImageError, InputMissingError
from sonic_ms.media import image


def png(width, height):
    """A PNG whose header promises width x height, with hardly any data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.fixture(scope="module")
def photo(astronaut):
    return np.ascontiguousarray(astronaut[:200, 100:260])  # 160 x 200


def difference(a, b):
    assert a.shape == b.shape and a.dtype == np.uint8
    return np.abs(a.astype(int) - b).mean()


@pytest.mark.parametrize(("suffix", "limit"), [("png", 0), ("bmp", 0), ("tif", 0), ("jpg", 5), ("webp", 5)])
def test_formats(tmp_path, photo, suffix, limit):
    Image.fromarray(photo).save(tmp_path / f"a.{suffix}")
    assert difference(image.load_image(tmp_path / f"a.{suffix}"), photo) <= limit


def test_modes(tmp_path, photo):
    grey = photo[..., 0]
    spread = np.repeat(grey[..., None], 3, 2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    Image.fromarray(grey / np.float32(255)).save(tmp_path / "float.tif")
    for name in ("grey.png", "grey16.png", "float.tif"):
        assert difference(image.load_image(tmp_path / name), spread) == 0, name
    cv2.imwrite(str(tmp_path / "rgb16.png"), photo[..., ::-1].astype(np.uint16) * 257)
    assert difference(image.load_image(tmp_path / "rgb16.png"), photo) == 0
    Image.fromarray(photo).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert difference(image.load_image(tmp_path / "cmyk.jpg"), photo) < 4
    Image.fromarray(photo).quantize(64).save(tmp_path / "palette.png")
    assert difference(image.load_image(tmp_path / "palette.png"), photo) < 10


def test_alpha_is_white(tmp_path, photo):
    alpha = np.zeros(photo.shape[:2], np.uint8)
    alpha[:100] = 255
    alpha[100] = 128
    Image.fromarray(np.dstack([photo, alpha])).save(tmp_path / "a.png")
    loaded = image.load_image(tmp_path / "a.png")
    assert difference(loaded[:100], photo[:100]) == 0
    assert (loaded[101:] == 255).all()
    np.testing.assert_allclose(loaded[100], (photo[100] * 128.0 + 255 * 127) / 255, atol=1)


def test_exif_rotation(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn a quarter clockwise
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    assert difference(image.load_image(tmp_path / "a.png"), np.rot90(photo, -1)) == 0


def test_embedded_profile_becomes_srgb(tmp_path, photo):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(photo).save(tmp_path / "same.png", icc_profile=srgb)
    assert difference(image.load_image(tmp_path / "same.png"), photo) < 1
    # A profile whose red primary is sRGB's green, and the other way round.
    swapped = srgb.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ")
    Image.fromarray(photo).save(tmp_path / "swapped.png", icc_profile=swapped)
    assert difference(image.load_image(tmp_path / "swapped.png"), photo[..., [1, 0, 2]]) < 1
    Image.fromarray(photo).save(tmp_path / "broken.png", icc_profile=b"no profile")
    assert difference(image.load_image(tmp_path / "broken.png"), photo) == 0


def test_opencv_reads_what_pillow_cannot(tmp_path, photo):
    cv2.imwrite(str(tmp_path / "a.hdr"), (photo[..., ::-1] / 255).astype(np.float32))
    assert difference(image.load_image(tmp_path / "a.hdr"), photo) < 2


def test_arrays(photo):
    np.testing.assert_array_equal(image.load_image(photo), photo)
    assert image.load_image(photo) is not photo
    np.testing.assert_array_equal(image.load_image(photo.astype(np.uint16) * 257), photo)
    np.testing.assert_array_equal(image.load_image(photo / 255), photo)
    np.testing.assert_array_equal(image.load_image(photo[..., 0])[..., 2], photo[..., 0])
    np.testing.assert_array_equal(image.load_image(np.dstack([photo, np.full((200, 160), 255, np.uint8)])), photo)


def test_bad_files(tmp_path, photo):
    Image.fromarray(photo).save(tmp_path / "good.jpg")
    good = (tmp_path / "good.jpg").read_bytes()
    files = {
        "empty.png": (b"", "0 bytes"),
        "text.png": (b"hello", "not an image"),
        "truncated.jpg": (good[: len(good) // 2], "truncated or corrupt"),
        "huge.png": (png(30000, 30000), "900000000 pixels, expected at most 64 million"),
        "large.png": (png(9000, 9000), "9000x9000 pixels, expected at most 64 million"),
        "tiny.png": (png(8, 8), "8x8 pixels, expected at least 32"),
        "lie.png": (png(100, 100), "truncated or corrupt"),
        "header.png": (png(100, 100)[:20], "not an image|unreadable header|truncated"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match=message) as error:
            image.load_image(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
    for path in (tmp_path / "none.png", tmp_path, tmp_path / ("a" * 300)):
        with pytest.raises(InputMissingError, match="no such file"):
            image.load_image(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((50, 50), bool),
        np.zeros((50, 50), np.int32),
        np.zeros((50, 50, 2), np.uint8),
        np.zeros((50,), np.uint8),
        np.zeros((31, 50, 3), np.uint8),
        np.full((50, 50, 3), 200.0),
        np.full((50, 50, 3), np.nan),
    ],
)
def test_bad_arrays(array):
    with pytest.raises(ImageError, match="expected"):
        image.load_image(array)


@pytest.mark.parametrize(("size", "shape"), [(80, (100, 80)), (320, (400, 320)), (99, (124, 100)), (160, (200, 160))])
def test_resize_short_side(photo, size, shape):
    result = image.resize_short_side(photo, size)
    assert result.shape == (*shape, 3)
    back = cv2.resize(result, photo.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert difference(back, photo) < 8


def test_to_even():
    assert image.to_even(np.zeros((101, 64, 3))).shape == (100, 64, 3)
    assert image.to_even(np.zeros((100, 65, 3))).shape == (100, 64, 3)
