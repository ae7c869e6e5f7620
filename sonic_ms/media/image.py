"""Portrait in: any still image -> (h, w, 3) uint8 RGB; and the few size changes the pipeline needs. NumPy only."""

import io
import re
import warnings
from pathlib import Path

import numpy as np

from sonic_ms.errors import ImageError, InputMissingError

MAX_PIXELS = 64_000_000  # 8000 x 8000; more is refused from the header, before any pixel is decoded
MIN_SIDE = 32  # pixels
# Formats that only OpenCV reads (Radiance HDR, Sun raster...) are decoded without a look at the header. Their run
# lengths spend at least 1 byte on 28 pixels, so that a file of this size cannot fill the memory.
MAX_OPENCV_BYTES = 8 << 20


def load_image(source):
    """Image as uint8 RGB, shape (h, w, 3), upright, sRGB, transparency on white.

    Args:
        source: path of a still image (of an animation, the first frame), or an array (h, w), (h, w, 1), (h, w, 3) or
            (h, w, 4) of uint8, uint16 or floats in 0..1.
    Raises:
        InputMissingError: no such file.
        ImageError: not an image, truncated, a side below 32 pixels, more than 64 M pixels, an array of another kind.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    path = Path(source)
    if not path.is_file():
        raise InputMissingError(f"image {path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise ImageError(f"image {path}: the file has 0 bytes, expected a photo; export it again")
    return _from_file(path)


def _check_size(name, width, height):
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width}x{height} pixels, expected at most {MAX_PIXELS // 10**6} million; scale it down first"
        )
    if min(width, height) < MIN_SIDE:
        raise ImageError(
            f"{name}: {width}x{height} pixels, expected at least {MIN_SIDE} on each side; give a larger photo"
        )


def _from_file(path):
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = f"image {path}"
    try:
        with warnings.catch_warnings():
            # Our own limit is lower than Pillow's; its warning about large images would only be noise.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error)).group()  # Pillow's words: "Image size (900000000 pixels) exceeds..."
        raise ImageError(
            f"{name}: {pixels} pixels, expected at most {MAX_PIXELS // 10**6} million; scale it down first"
        ) from error
    except UnidentifiedImageError:
        return _from_file_opencv(path)
    except Exception as error:  # a header can be broken in as many ways as there are formats
        raise ImageError(f"{name}: unreadable header ({error}); export it again as png or jpg") from error
    with image:
        _check_size(name, *image.size)
        try:
            image.load()
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error...
            raise ImageError(f"{name}: truncated or corrupt ({error}); export it again as png or jpg") from error
        return _flatten(_to_srgb(ImageOps.exif_transpose(image)))


def _to_srgb(image):
    """Colours of an embedded profile (Display P3 of phones, CMYK of print) as sRGB; a broken profile is ignored."""
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError):
        return image


def _flatten(image):
    """Pillow image of any mode -> (h, w, 3) uint8."""
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):  # one channel of 16 bits, 32 bits or floats
        values = np.asarray(image, np.float32)
        values = values / (65535 if values.max() > 255 else 255 if values.max() > 1 else 1)
        return _from_array(np.clip(values, 0, 1))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _from_array(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _from_file_opencv(path):
    import cv2

    if path.stat().st_size > MAX_OPENCV_BYTES or not cv2.haveImageReader(str(path)):
        raise ImageError(f"image {path}: not an image file; expected png, jpg, webp, bmp or tiff")
    try:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"image {path}: corrupt ({error.err}); export it again as png or jpg") from error
    if image is None:
        raise ImageError(f"image {path}: truncated or corrupt; export it again as png or jpg")
    _check_size(f"image {path}", image.shape[1], image.shape[0])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _from_array(array):
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(f"image array: shape {array.shape}, expected (h, w), (h, w, 3) or (h, w, 4)")
    _check_size("image array", array.shape[1], array.shape[0])
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) * 255 + 32767) // 65535
    elif array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also true for NaN
            raise ImageError(
                f"image array: {array.dtype} from {array.min():g} to {array.max():g}, expected 0..1; divide by 255?"
            )
        array = np.round(array * 255)
    elif array.dtype != np.uint8:
        raise ImageError(f"image array: {array.dtype}, expected uint8, uint16 or floats in 0..1")
    if channels == 4:
        colour, alpha = array[..., :3].astype(np.float32), array[..., 3:].astype(np.float32) / 255
        array = np.round(colour * alpha + 255 * (1 - alpha))
    elif channels == 1:
        array = np.broadcast_to(array.reshape(*array.shape[:2], 1), (*array.shape[:2], 3))
    return np.array(array, np.uint8, order="C")


def resize_short_side(image, size):
    """Scale (h, w, 3) uint8 so that its short side is `size` pixels (rounded to even); the long side is even too."""
    import cv2

    height, width = image.shape[:2]
    scale = size / min(height, width)
    target = tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))
    if target == (width, height):
        return image.copy()
    return cv2.resize(image, target, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LANCZOS4)


def to_even(image):
    """Crop the last row or column where a side is odd: H.264 with 4:2:0 colour needs even sides."""
    return image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
