"""Portrait in: any still image -> (h, w, 3) uint8 RGB; and the few size changes the pipeline needs. NumPy only.

Only the formats in FORMATS are opened, and none is opened twice by different libraries: what Pillow finds damaged is
damaged. A picture is converted in strips, and refused before it is decoded if that would take more than MAX_BYTES.
"""

import contextlib
import ctypes
import io
import os
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np

from sonic_ms.errors import ImageError, ResourceError
from sonic_ms.media.kinds import require_file, what_is

MAX_PIXELS = 64_000_000  # 8000 x 8000; more is refused from the header, before any pixel is decoded
MIN_SIDE = 32  # pixels
MAX_BYTES = 1 << 30  # of memory that reading a picture may take above what the process had
SLACK = 48 << 20  # of it for strips and for what decoders hold that does not grow with the picture
STRIP = 1 << 18  # pixels converted at once
# What Pillow may open. EPS is not here: its text is a program, which Ghostscript would run.
FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "TGA", "JPEG2000", "AVIF"]
# Bytes a pixel while a picture is decoded, measured (docs/threats.md); 4 for those that are not here. JPEG is
# without progressive mode, whose coefficients are 2 more for each component.
DECODING = {"WEBP": 16, "JPEG2000": 25, "AVIF": 14, "HEIF": 16}
WHOLE_FILE = {"WEBP", "AVIF", "HEIF", "TIFF"}  # the file, or a strip of it, is held in memory meanwhile
OPENCV_HDR, OPENCV_FLOAT = 32, 36  # bytes a pixel of what OpenCV reads: Radiance HDR, float TIFF in colour
# Float pictures: 1 is white, unless the brightest 0.5 % lie above BRIGHT; then the next of these above them is.
WHITES, BRIGHT = (255, 1023, 4095, 16383, 65535), 4
# EXIF orientation -> (transpose?, flip rows?, flip columns?) that turns the picture upright, in this order
UPRIGHT = {2: (0, 0, 1), 3: (0, 1, 1), 4: (0, 1, 0), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}


def load_image(source):
    """Image as uint8 RGB, shape (h, w, 3), upright, sRGB, transparency on white.

    Floats are taken as display values: 0 is black; white is 1, or, where the brightest 0.5 % of a file lie above 4, the
    next of 255, 1023, 4095, 16383 and 65535 above them. What is brighter than white or darker than black is cut off.

    Args:
        source: path of a still image (of an animation, the first frame), or an array (h, w), (h, w, 1), (h, w, 3) or
            (h, w, 4) of uint8, uint16 or floats in 0..1.
    Raises:
        InputMissingError: no such file.
        ImageError: not an image, truncated, a side below 32 pixels, more than 64 M pixels or 1 GB to decode, an array
            of another kind. ResourceError: this machine has not even the memory that is allowed.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    path = Path(source)
    require_file(path, f"image {path}")
    if path.stat().st_size == 0:
        raise ImageError(f"image {path}: the file has 0 bytes, expected a photo; export it again")
    with warnings.catch_warnings():
        # Pillow's limit of pixels is higher than ours, and what it says of broken tags is of no use to anyone.
        warnings.simplefilter("ignore")
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


def _check_memory(name, what, size):
    """Refuse a picture that takes `size` bytes to decode; what: its format and pixels."""
    if size > MAX_BYTES - SLACK:
        raise ImageError(
            f"{name}: {what} would take {(size + SLACK) / 2**20:.0f} MB to decode, expected at most "
            f"{MAX_BYTES >> 20} MB; scale it down or export it as png or jpg"
        )


def _line(error):
    """The words of another library's error, on one line of at most 160 characters."""
    return " ".join(str(error).split())[:160]


def _from_file(path):
    from PIL import Image, UnidentifiedImageError

    name = f"image {path}"
    known = what_is(path)
    formats = FORMATS + _heif(known)
    Image.init()
    file = _Bounded(io.FileIO(path))
    try:
        image = Image.open(file, formats=[one for one in formats if one in Image.OPEN])  # old Pillows have no AVIF
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error)).group()  # Pillow's words: "Image size (900000000 pixels) exceeds..."
        raise ImageError(
            f"{name}: {pixels} pixels, expected at most {MAX_PIXELS // 10**6} million; scale it down first"
        ) from error
    except UnidentifiedImageError as error:
        return _from_other_file(path, known, error)
    except Exception as error:  # a header can be broken in as many ways as there are formats
        raise ImageError(f"{name}: unreadable header ({_line(error)}); export it again as png or jpg") from error
    with file, image:
        _check_size(name, *image.size)
        what = f"{image.format} of {image.width}x{image.height} pixels"
        _check_memory(name, what, _decoding_bytes(name, image, path.stat().st_size))
        try:
            if image.format == "TIFF":
                _quiet_libtiff()
            image.load()
            _check_size(name, *image.size)  # a few formats only know while they decode
            rgb = _to_rgb(image)
        except ImageError:
            raise
        except MemoryError as error:
            raise ResourceError(f"{name}: not enough memory to decode {what}; end other programs") from error
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error...
            raise ImageError(f"{name}: truncated or corrupt ({_line(error)}); export it again as png or jpg") from error
        turn = _orientation(image)
    return _upright(rgb, turn)


class _Bounded(io.BufferedReader):
    """A file that never makes room for more than is left of it: a header of 20 bytes may promise 4 GB to come."""

    def read(self, size=-1):
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _heif(known):
    """["HEIF"] if the file is one (see kinds.what_is) and the extra that reads it is installed."""
    if known is None or known[0] != "HEIC photo":
        return []
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return []
    register_heif_opener()
    return ["HEIF"]


def _decoding_bytes(name, image, file_size):
    """Bytes that decoding and converting an opened Pillow image will take, from its header."""
    pixels = image.width * image.height
    size = DECODING.get(image.format, 4) * pixels
    if image.format in ("JPEG", "MPO") and "progressive" in image.info:
        size += 2 * len(image.getbands()) * pixels
    if image.format in WHOLE_FILE:
        size += file_size
    if image.format == "TIFF":
        tags = image.tag_v2
        if 50706 in tags or _number(tags, 254) & 1 or _number(tags, 262) in (32803, 34892):  # DNG, preview, raw sensor
            raise ImageError(f"{name}: is a raw photo of a camera, or its preview; develop it to jpg first")
        # libtiff holds a tile or a strip as a whole; both sizes are the file's claim. And Pillow may turn the picture.
        rows = _number(tags, 278) or image.height
        area = _number(tags, 322) * _number(tags, 323) or image.width * min(rows, image.height)
        size += 4 * pixels + area * max(_number(tags, 277), 1) * max(_number(tags, 258), 1) // 8
    return max(size, 7 * pixels)  # Pillow's 4 and our 3


def _number(tags, key):
    """A TIFF tag as a number, 0 when it is missing or no number; the largest of several."""
    try:
        value = tags.get(key, 0)
        return int(max(value) if isinstance(value, tuple) else value)
    except Exception:  # a tag of any type may stand there
        return 0


def _orientation(image):
    """EXIF orientation 1 to 8 of a Pillow image; 1 where the tag is missing or broken."""
    try:
        value = image.getexif().get(0x0112, 1)
        return int(value) if value in UPRIGHT else 1
    except Exception:  # EXIF is read by Pillow's TIFF reader, which a broken block fails in many ways
        return 1


def _upright(rgb, orientation):
    """Turn (h, w, 3) as its EXIF orientation says."""
    if orientation == 1:
        return rgb
    transpose, rows, columns = UPRIGHT[orientation]
    rgb = rgb.transpose(1, 0, 2) if transpose else rgb
    return np.ascontiguousarray(rgb[:: -1 if rows else 1, :: -1 if columns else 1])


def _strips(width, height):
    """(first, last) rows of strips of about STRIP pixels."""
    step = max(1, STRIP // width)
    return [(first, min(first + step, height)) for first in range(0, height, step)]


def _to_rgb(image):
    """Loaded Pillow image of any mode -> (h, w, 3) uint8 sRGB, strip by strip."""
    transform = _srgb_transform(image)
    levels = _levels(image)
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    for first, last in _strips(image.width, image.height):
        strip = image.crop((0, first, image.width, last))
        rgb[first:last] = _flatten(strip if transform is None else transform(strip), levels)
    return rgb


def _srgb_transform(image):
    """Function (Pillow image) -> its colours of an embedded profile (Display P3 of phones, CMYK of print) as sRGB.

    None without a profile; a broken one is ignored.
    """
    from PIL import ImageCms

    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK", "L"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, mode)
        ImageCms.applyTransform(image.crop((0, 0, 1, 1)), transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return lambda strip: ImageCms.applyTransform(strip, transform)


def _is_deep(mode):
    return mode in ("F", "I") or mode.startswith("I;16")  # one channel of 16 bits, 32 bits or floats


def _levels(image):
    """Value of white in a picture whose samples are no bytes; None for the others."""
    if not _is_deep(image.mode):
        return None
    strips = (
        np.asarray(image.crop((0, first, image.width, last)), np.float32)
        for first, last in _strips(image.width, image.height)
    )
    if image.mode == "F":
        step = max(1, image.width * image.height // STRIP)  # of the pixels, about 250,000 count
        return _white(np.concatenate([strip.ravel()[::step] for strip in strips]))
    top = max(float(strip.max()) for strip in strips)
    return 65535 if top > 255 else 255 if top > 1 else 1


def _white(values):
    """Which float is white, from a sample (n,) of a picture's values; see load_image."""
    values = values[np.isfinite(values)]
    low, top = np.percentile(values, (0.5, 99.5)) if len(values) else (0, 0)
    white = 1 if top <= BRIGHT else next((white for white in WHITES if top <= white), None)
    if white is None or low < -white / 20:
        raise ImageError(f"float picture with values from {low:g} to {top:g}, expected 0..1, 0..255 or 0..65535")
    return white


def _flatten(image, white=None):
    """Pillow image of any mode -> (h, w, 3) uint8; white: of modes whose samples are no bytes."""
    if white is not None:
        return _to_bytes(np.nan_to_num(np.clip(np.asarray(image, np.float32) / white, 0, 1)))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _to_bytes(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _from_other_file(path, known, error):
    """What Pillow does not read: Radiance HDR and float TIFF in colour, by OpenCV; anything else is named."""
    with open(path, "rb") as file:
        head = file.read(4096)
    hdr = re.match(rb"#\?(?:RADIANCE|RGBE)\n(?:[^\n]+\n)*\n-Y (\d{1,6}) \+X (\d{1,6})\n", head)
    name = f"image {path}"
    if hdr:
        height, width = map(int, hdr.groups())
        return _from_opencv(path, width, height, OPENCV_HDR)
    layout = _float_tiff(path) if head[:4] in (b"II*\0", b"MM\0*") else None
    if layout:
        return _from_opencv(path, *layout, OPENCV_FLOAT)
    if known and known[0] in ("PNG picture", "JPEG picture", "WebP picture", "GIF picture", "JPEG 2000 picture"):
        raise ImageError(f"{name}: truncated or corrupt, its header cannot be read; export it again as png or jpg")
    if known:
        raise ImageError(f"{name}: is a {known[0]}, a format that is not read here; {known[1]}") from error
    raise ImageError(f"{name}: not an image file; expected png, jpg, webp, bmp or tiff") from error


def _float_tiff(path):
    """(width, height) of a TIFF of 3 or 4 floats a pixel, or None."""
    from PIL import TiffImagePlugin

    try:
        with open(path, "rb") as file:
            tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
    except Exception:  # the tags of a broken file fail in many ways
        return None
    floats = _number(tags, 339) == 3 and _number(tags, 258) == 32 and _number(tags, 277) in (3, 4)
    width, height = _number(tags, 256), _number(tags, 257)
    tile = _number(tags, 322) * _number(tags, 323)
    return (width, height) if floats and tile <= 4 * width * height else None


def _from_opencv(path, width, height, bytes_a_pixel):
    import cv2

    name = f"image {path}"
    _check_size(name, width, height)
    _check_memory(name, f"picture of {width}x{height} pixels", bytes_a_pixel * width * height)
    with _quiet(cv2):
        try:
            hdr = bytes_a_pixel == OPENCV_HDR
            image = cv2.imread(str(path), cv2.IMREAD_COLOR if hdr else cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise ImageError(f"{name}: corrupt ({_line(error.err)}); export it again as png or jpg") from error
    if image is None or image.ndim != 3 or image.shape[:2] != (height, width):
        raise ImageError(f"{name}: truncated or corrupt; export it again as png or jpg")
    if hdr:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    white = _white(image.reshape(-1)[:: max(1, image.size // STRIP)])
    rgb = np.empty((height, width, 3), np.uint8)
    for first, last in _strips(width, height):
        strip = image[first:last, :, [2, 1, 0, 3][: image.shape[2]]].astype(np.float32)
        strip[..., :3] /= white
        rgb[first:last] = _to_bytes(np.nan_to_num(np.clip(strip, 0, 1)))
    return rgb


@cache
def _quiet_libtiff():
    """Take the error handler out of the libtiff that Pillow has loaded: it prints, and Pillow raises anyway."""
    with contextlib.suppress(OSError, AttributeError):
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for library in set(re.findall(r"/\S*libtiff\S*", maps)):
            ctypes.CDLL(library).TIFFSetErrorHandler(None)


@contextlib.contextmanager
def _quiet(cv2):
    """OpenCV does not print while the block runs: an error of ours says it in one line."""
    before = cv2.getLogLevel()
    cv2.setLogLevel(0)  # silent
    try:
        yield
    finally:
        cv2.setLogLevel(before)


def _from_array(array):
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(f"image array: shape {array.shape}, expected (h, w), (h, w, 3) or (h, w, 4)")
    _check_size("image array", array.shape[1], array.shape[0])
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # also true for NaN
            raise ImageError(
                f"image array: {array.dtype} from {array.min():g} to {array.max():g}, expected 0..1; divide by 255?"
            )
    elif array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"image array: {array.dtype}, expected uint8, uint16 or floats in 0..1")
    rgb = np.empty((*array.shape[:2], 3), np.uint8)
    for first, last in _strips(array.shape[1], array.shape[0]):
        rgb[first:last] = _to_bytes(array[first:last])
    return rgb


def _to_bytes(array):
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint8, uint16 or floats in 0..1 -> (h, w, 3), alpha on white."""
    if array.dtype == np.uint16:
        array = (array.astype(np.uint32) * 255 + 32767) // 65535
    elif array.dtype.kind == "f":
        array = np.round(array * 255)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] == 4:
        colour, alpha = array[..., :3].astype(np.float32), array[..., 3:].astype(np.float32) / 255
        array = np.round(colour * alpha + 255 * (1 - alpha))
    return np.broadcast_to(array, (*array.shape[:2], 3)).astype(np.uint8)


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
