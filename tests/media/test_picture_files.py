"""Pictures that are not what they seem: formats named, broken EXIF, floats, memory, and nothing started or printed."""

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from sonic_ms.errors import ImageError, SonicError
from sonic_ms.media import image

CASES = Path(__file__).parents[1] / "cases"
ISO = struct.pack(">I", 24)


@pytest.fixture(scope="module")
def photo(astronaut):
    return np.ascontiguousarray(astronaut[:200, 100:260])


@pytest.mark.parametrize(
    "name, head, words",
    [
        ("a.heic", ISO + b"ftypheic\0\0\0\0mif1heic", "HEIC photo"),
        ("b.jpg", ISO + b"ftypmif1\0\0\0\0mif1heic", "HEIC photo"),
        ("a.avif", ISO + b"ftypavif\0\0\0\0mif1avif", "AVIF picture|truncated|unreadable"),
        ("a.jxl", b"\xff\x0a\xfa\x1f\x01\x91", "JPEG XL"),
        ("b.jxl", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("a.pdf", b"%PDF-1.7\n", "PDF document"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", "PostScript"),
        ("a.svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG drawing"),
        ("b.svg", b"<svg width='9'>", "SVG drawing"),
        ("a.psd", b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3), "Photoshop"),
        ("a.cr2", b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "raw photo"),
        ("a.cr3", ISO + b"ftypcrx \0\0\0\x01crx isom", "raw photo"),
        ("a.raf", b"FUJIFILMCCD-RAW 0201FF", "raw photo"),
        ("a.orf", b"IIRO\x08\0\0\0", "raw photo"),
        ("a.xcf", b"gimp xcf v011\0", "GIMP"),
        ("a.exr", b"v/1\x01\x02\0\0\0", "format for special uses"),
        ("a.ico", b"\0\0\x01\0\x01\0\x40\x40", "icon"),
        ("a.mp4", ISO + b"ftypisom\0\0\x02\0isomiso2", "video"),
        ("a.wav", b"RIFF\x24\0\0\0WAVEfmt ", "sound file"),
        ("a.zip", b"PK\x03\x04\x14\0", "archive"),
        ("a.html", b"<!DOCTYPE html><html>", "web page"),
        ("c.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_a_format_that_is_not_read_is_named(tmp_path, name, head, words):
    (tmp_path / name).write_bytes(head + bytes(64))
    with pytest.raises(ImageError, match=words) as error:
        image.load_image(tmp_path / name)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_heic_photo_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    with pytest.raises(ImageError, match=r"HEIC photo.*sonic_ms\[heif\]"):
        image.load_image(CASES / "p.heic")


def test_a_heic_photo_is_read_with_the_extra():
    pytest.importorskip("pillow_heif")
    loaded = image.load_image(CASES / "p.heic")
    assert loaded.shape == (384, 384, 3) and 60 < loaded.mean() < 200


def test_the_preview_of_a_raw_photo_is_not_taken_for_the_photo(tmp_path, photo):
    for tags in ({254: 1}, {50706: b"\1\4\0\0"}):
        Image.fromarray(photo).save(tmp_path / "a.dng", "TIFF", tiffinfo=tags)
        with pytest.raises(ImageError, match="raw photo of a camera"):
            image.load_image(tmp_path / "a.dng")


def test_ghostscript_is_not_started(tmp_path, monkeypatch):
    log, tools = tmp_path / "log", tmp_path / "bin"
    tools.mkdir()
    (tools / "gs").write_text(f"#!/bin/sh\necho run >> {log}\n")
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    (tmp_path / "x.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    )
    with pytest.raises(ImageError, match="PostScript"):
        image.load_image(tmp_path / "x.jpg")
    assert not log.exists()


def test_broken_exif_turns_all_the_same(photo):
    assert image.load_image(CASES / "exif_width_str.jpg").shape == (384, 384, 3)
    upright = Image.open(CASES / "exif_width_str.jpg").transpose(Image.Transpose.ROTATE_270)
    np.testing.assert_array_equal(image.load_image(CASES / "exif_width_str.jpg"), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, photo, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(image.load_image(tmp_path / "a.png"), expected)


def exif_case(rng, photo):
    """A small picture with EXIF of random tags, types and counts."""
    tags = b""
    count = rng.randrange(1, 6)
    for _ in range(count):
        tag = rng.choice([0x112, 0x112, 0x10F, 0x8769, 0x8825, 0x2BC, 0x111, 0x117, 0x927C, 0xA005, 0x14A, 0x100])
        kind, number = rng.choice([*range(14), 255]), rng.choice([0, 1, 1, 2, 5, 100, 2**31, 2**32 - 1])
        tags += struct.pack("<HHII", tag, kind, number, rng.choice([0, 1, 3, 6, 8, 26, 100, 2**31, 2**32 - 1]))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", rng.choice([8, 8, 8, 0, 4, 2**31]), rng.choice([count, 200, 65535]))
    exif += tags + bytes(4) + rng.randbytes(40)
    out = io.BytesIO()
    Image.fromarray(photo).save(out, rng.choice(["JPEG", "PNG", "WEBP"]), exif=exif[: rng.randrange(7, 2 * len(exif))])
    return out.getvalue()


def test_exif_of_any_kind_is_no_unexpected_error(tmp_path, photo, capfd):
    rng = random.Random(0)
    small = np.ascontiguousarray(photo[:48, :40])
    for _ in range(400):
        (tmp_path / "a.jpg").write_bytes(exif_case(rng, small))
        assert sorted(image.load_image(tmp_path / "a.jpg").shape[:2]) == [40, 48]
    assert capfd.readouterr() == ("", "")


def mutate(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        place, kind = rng.randrange(len(data)), rng.randrange(5)
        if kind == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + 4] = rng.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"])
        elif kind == 2:
            del data[place : place + rng.randrange(1, 32)]
        elif kind == 3:
            data[place:place] = rng.randbytes(rng.randrange(1, 16))
        else:
            del data[max(place, 1) :]
    return bytes(data) or b"x"


def test_damaged_pictures_end_in_a_line(tmp_path, photo, capfd):
    """The same as 20,000 mutations of each kind that were run by hand."""
    rng, small = random.Random(1), Image.fromarray(np.ascontiguousarray(photo[:48, :40]))
    seeds = []
    for kind, mode, options in (
        ("PNG", "RGB", {}), ("PNG", "P", {"transparency": b"\1\2"}), ("JPEG", "RGB", {}), ("JPEG", "CMYK", {}),
        ("WEBP", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "F", {}), ("GIF", "P", {}),
        ("BMP", "RGB", {}), ("PPM", "RGB", {}), ("TGA", "RGBA", {"compression": "tga_rle"}), ("JPEG2000", "RGB", {}),
    ):  # fmt: skip
        out = io.BytesIO()
        small.convert(mode).save(out, kind, **options)
        seeds.append(out.getvalue())
    seeds.append(cv2.imencode(".hdr", np.asarray(small).astype(np.float32))[1].tobytes())
    seeds.append(float_tiff(np.asarray(small) / np.float32(255)))
    for _ in range(1200):
        (tmp_path / "a").write_bytes(mutate(rng.choice(seeds), rng))
        try:
            loaded = image.load_image(tmp_path / "a")
            assert loaded.dtype == np.uint8 and loaded.ndim == 3
        except SonicError as error:
            assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def float_tiff(array, tile=None):
    """Uncompressed TIFF of (h, w), (h, w, 3) or (h, w, 4) floats; tile: its sides are claimed to be so large."""
    height, width, channels = (*array.shape, 1)[:3]
    bits = 8 * array.itemsize
    tags = {256: width, 257: height, 258: [bits] * channels, 259: 1, 262: 2 if channels > 1 else 1, 277: channels}
    tags |= {339: [3] * channels, 322: tile, 323: tile, 324: 0, 325: array.nbytes} if tile else {339: [3] * channels}
    tags |= {} if tile else {273: 0, 278: height, 279: array.nbytes}
    tags |= {338: 2} if channels == 4 else {}
    extra, rows, start = b"", b"", 8 + 2 + 12 * len(tags) + 4
    place = start + 4 * channels * 2
    for tag, value in sorted(tags.items()):
        if isinstance(value, list) and len(value) > 2:
            rows += struct.pack("<HHII", tag, 3, len(value), start + len(extra))
            extra += struct.pack(f"<{len(value)}H", *value)
        else:
            value = value[0] if isinstance(value, list) else place if tag in (273, 324) else value
            rows += struct.pack("<HHII", tag, 4, 1, value)
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + rows + bytes(4) + extra
    return data.ljust(place, b"\0") + array.tobytes()


class TestFloats:
    @pytest.mark.parametrize("white", [1, 255, 1023, 65535])
    @pytest.mark.parametrize("colour", [False, True])
    def test_white_is_found(self, tmp_path, photo, white, colour):
        picture = photo if colour else photo[..., 0]
        (tmp_path / "a.tif").write_bytes(float_tiff((picture / 255 * white).astype(np.float32)))
        loaded = image.load_image(tmp_path / "a.tif").astype(int)
        expected = picture if colour else np.repeat(picture[..., None], 3, 2)
        assert np.abs(loaded - expected).max() <= 1

    def test_a_few_highlights_do_not_make_the_rest_black(self, tmp_path, photo):
        values = (photo[..., 0] / 255 * 1.3).astype(np.float32)
        values[0, 0], values[0, 1] = 90, np.nan
        (tmp_path / "a.tif").write_bytes(float_tiff(values))
        loaded = image.load_image(tmp_path / "a.tif")[..., 0].astype(int)
        expected = np.minimum(photo[..., 0] * 1.3, 255)
        assert np.abs(loaded - expected)[1:].max() <= 1 and loaded[0, 0] == 255 and loaded[0, 1] == 0

    @pytest.mark.parametrize("low, high", [(-1, 1), (0, 1e6)])
    def test_other_ranges_are_refused_with_their_numbers(self, tmp_path, photo, low, high):
        (tmp_path / "a.tif").write_bytes(float_tiff((photo[..., 0] / 255 * (high - low) + low).astype(np.float32)))
        with pytest.raises(ImageError, match="values from"):
            image.load_image(tmp_path / "a.tif")


def peak(path):
    """(what load_image says, bytes of memory at its highest above the idle process) in a process of its own."""
    code = (
        "import sys, cv2, PIL.Image, PIL.ImageCms; from sonic_ms.media import image; PIL.Image.init()\n"
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "try: said = str(image.load_image(sys.argv[1]).shape)\n"
        "except image.ImageError as error: said = str(error)\n"
        "print(peak() - before, said)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    size, _, said = done.stdout.strip().partition(" ")
    return said, int(size)


@pytest.mark.slow
class TestMemory:
    """The largest ones were measured by hand (docs/threats.md); these show that memory grows as it should."""

    @pytest.mark.parametrize(
        "kind, mode, options",
        [
            ("png", "RGBA", {}), ("png", "P", {"transparency": bytes(range(256))}), ("png", "icc", {}),
            ("jpg", "RGB", {"progressive": True}), ("tif", "RGBA", {"compression": "tiff_deflate"}),
            ("webp", "RGBA", {"method": 0}),
        ],
    )  # fmt: skip
    def test_sixteen_million_pixels(self, tmp_path, kind, mode, options):
        from PIL import ImageCms

        if mode == "icc":
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            mode, options = "RGBA", {"icc_profile": profile}
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.linear_gradient("L").resize((4000, 4000)).convert("RGBA")
        picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
        picture.save(tmp_path / f"a.{kind}", exif=exif, **options)
        said, size = peak(tmp_path / f"a.{kind}")
        assert said == "(4000, 4000, 3)" and size < 16 * 4000**2 + image.SLACK

    def test_more_than_the_budget_is_refused_with_the_number(self, tmp_path, photo, monkeypatch):
        Image.fromarray(photo).resize((1000, 1000)).save(tmp_path / "a.webp")
        monkeypatch.setattr(image, "MAX_BYTES", image.SLACK + (8 << 20))
        with pytest.raises(ImageError, match=r"WEBP of 1000x1000 pixels would take 63 MB .* at most 56 MB"):
            image.load_image(tmp_path / "a.webp")
        Image.fromarray(photo).resize((1000, 1000)).save(tmp_path / "a.png")
        assert image.load_image(tmp_path / "a.png").shape == (1000, 1000, 3)

    def test_a_tile_larger_than_the_picture_is_counted(self, tmp_path, photo):
        for name, array in (("grey.tif", photo[..., 0]), ("colour.tif", photo)):
            (tmp_path / name).write_bytes(float_tiff(array.astype(np.float32), tile=60000))
            said, size = peak(tmp_path / name)
            assert "MB to decode" in said or "not read here" in said
            assert size < 64 << 20

    def test_a_damaged_png_is_not_given_to_another_library(self, tmp_path, photo, monkeypatch):
        monkeypatch.setattr(cv2, "imread", lambda *_: pytest.fail("OpenCV was asked"))
        Image.fromarray(photo).resize((40, 48)).save(tmp_path / "a.png")
        data = bytearray((tmp_path / "a.png").read_bytes())
        for length in (0x7FFFFFFF, 0x30000000, 12, 14):
            for place in (8, 33):  # length of IHDR, of IDAT
                case = bytes(data[:place]) + struct.pack(">I", length) + bytes(data[place + 4 :])
                (tmp_path / "b.png").write_bytes(case)
                if place == 8:
                    with pytest.raises(ImageError, match=r"corrupt|unreadable"):
                        image.load_image(tmp_path / "b.png")
                said, size = peak(tmp_path / "b.png")
                assert "corrupt" in said or "unreadable" in said or place == 33  # the pixels may all be there
                assert size < 32 << 20

    def test_nothing_is_reserved_for_what_a_chunk_claims(self, tmp_path):
        """An IDAT of 2 GB by its length: Pillow reads to its end, and must not make room for it."""
        code = "import sys, resource, PIL.Image; from sonic_ms.media.image import load_image; PIL.Image.init()\n"
        code += "used = int(open('/proc/self/statm').read().split()[0]) * 4096 + (512 << 20)\n"
        code += "resource.setrlimit(resource.RLIMIT_AS, (used, used)); print(load_image(sys.argv[1]).shape)\n"
        Image.fromarray(np.full((64, 64), 999, np.uint16)).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(data[:33] + b"\x7f\xff\xff\xff" + data[37:])
        command = [sys.executable, "-c", code, tmp_path / "a.png"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(64, 64, 3)\n"

    def test_a_compressed_profile_or_text_is_no_bomb(self, tmp_path, photo):
        Image.fromarray(photo).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        for kind in (b"iCCP", b"zTXt"):
            body = kind + b"x\0\0" + zlib.compress(bytes(200 << 20), 9)
            chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
            (tmp_path / "b.png").write_bytes(data[:33] + chunk + data[33:])
            assert peak(tmp_path / "b.png")[1] < 64 << 20


def test_an_hdr_that_claims_more_than_it_holds(tmp_path, capfd):
    (tmp_path / "a.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 32000 +X 32000\n" + bytes(100))
    with pytest.raises(ImageError, match="32000x32000 pixels"):
        image.load_image(tmp_path / "a.hdr")
    (tmp_path / "b.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 64 +X 64\n" + b"\x02\x02\0\x40\xff")
    with pytest.raises(ImageError, match="truncated or corrupt"):
        image.load_image(tmp_path / "b.hdr")
    assert capfd.readouterr() == ("", "")
