"""What a file is that nothing here reads, from its first bytes: so that a message can name it and say what to do."""

import os
import re

from sonic_ms.errors import InputMissingError

HEAD = 4096  # bytes looked at

JPG = "export it as jpg or png"
HEIC = "export it as jpg, or pip install 'sonic_ms[heif]'"
DEVELOP = "develop it to jpg first"
UNPACK = "unpack it first"
SOUND = "a picture is expected here"
PLAYLIST = "a playlist only names other files: give the file itself"
# (what the file begins with, what it is, what to do)
KINDS = [
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", "HEIC photo", HEIC),
    (rb"....ftyp(avif|avis)", "AVIF picture", JPG + ", or install Pillow 11.3 or newer"),
    (rb"....ftypcrx ", "raw photo of a camera (Canon CR3)", DEVELOP),
    (rb"....ftypM4[AB]", "sound file (m4a)", SOUND),
    (rb"....(ftyp|moov|mdat|free|wide)", "video (mp4, mov)", "take a picture out of it first"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL picture", JPG),
    (rb"\0\0\0\x0cjP|\xff\x4f\xff\x51", "JPEG 2000 picture", JPG),
    (rb"\xff\xd8\xff", "JPEG picture", JPG),
    (rb"\x89PNG", "PNG picture", JPG),
    (rb"RIFF....WEBP", "WebP picture", JPG),
    (rb"GIF8", "GIF picture", JPG),
    (rb"%PDF", "PDF document", "export the page as jpg or png"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript file", JPG),
    (rb"8BP[SB]", "Photoshop file", JPG),
    (rb"gimp xcf", "GIMP file", JPG),
    (rb"II\*\0.{4}CR|FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|FOVb|\0MRM", "raw photo of a camera", DEVELOP),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF of rare samples", JPG + " with 8 or 16 bits"),
    (rb"II\xbc", "JPEG XR picture", JPG),
    (rb"\0\0[\x01\x02]\0|icns", "icon", JPG),
    (rb"DDS |\x01\xda[\0\x01]|\x59\xa6\x6a\x95|qoif|BPG\xfb|FLIF|P[Ff7]\s|v/1\x01|SDPX|XPDS|SIMPLE  =|.{128}DICM",
     "picture of a format for special uses", JPG),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF|AT&TFORM|BM.{4}\0\0\0\0", "drawing or scan", JPG),
    (rb"RIFF....AVI |\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|FLV|0&\xb2u", "video", "take a picture out of it first"),
    (rb"RIFF....WAVE|RF64|ID3|fLaC|OggS|FORM....AIF|\.snd|#!AMR|caff|\xff[\xfb\xf3\xf2\xf1\xf9]", "sound file", SOUND),
    (rb"\s*#EXTM3U|\s*#EXT-X-", "playlist (m3u8)", PLAYLIST),
    (rb"\s*ffconcat version", "playlist (ffconcat)", PLAYLIST),
    (rb"(?i)\s*\[playlist\]|\s*<asx|\s*<smil|v=0\r?\no=", "playlist", PLAYLIST),
    (rb"\s*<.{0,1000}<(MPD|CompositionPlaylist)\b|\s*<MPD", "playlist (DASH, IMF)", PLAYLIST),
    (rb"(?is)(\xef\xbb\xbf)?\s*(<\?xml|<!--|<!doctype svg|<svg).{0,2000}<svg|\s*<svg", "SVG drawing", JPG),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "web page, not what it links to", "download the file itself"),
    (rb"version https://git-lfs", "git-LFS pointer, not the file itself", "run git lfs pull"),
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "archive or office document", UNPACK),
]  # fmt: skip
BRANDS = {b"avif": 1, b"avis": 1, b"heic": 0, b"heix": 0}  # compatible brands of mif1 that say more -> row of KINDS


def require_file(path, name):
    """Raise InputMissingError, begun with `name`, unless `path` is a file that may be read."""
    if not os.path.isfile(path):  # unlike Path.is_file it takes names of any length
        raise InputMissingError(f"{name}: no such file; check the path")
    if not os.access(path, os.R_OK):
        raise InputMissingError(f"{name}: may not be read; change its permissions")


def what_is(path):
    """(what the file is, what to do about it) from its first bytes, e.g. ("PDF document", "export..."); or None."""
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[4:12] in (b"ftypmif1", b"ftypmsf1", b"ftypmiaf"):  # generic: the brands behind it say which
        brands = [head[place : place + 4] for place in range(16, min(int.from_bytes(head[:4], "big"), 128), 4)]
        for brand in brands:
            if brand in BRANDS:
                return KINDS[BRANDS[brand]][1:]
    for pattern, what, advice in KINDS:
        if re.match(pattern, head, re.DOTALL):
            return what, advice
    return None
