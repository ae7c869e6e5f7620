"""Files of a tree of checkpoints: which are read, which network a name speaks of, and what a file is that is none.

Networks are recognised by their tensors, never by names (see checkpoints.py). Names only say what a file that cannot be
read was meant to be, and which of two different files is the published one.
"""

import os
import re
from pathlib import Path

from sonic_ms.errors import InputMissingError, SonicError
from sonic_ms.files.reading import read_json
from sonic_ms.files.temporary import PREFIX

SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".ckpt")
UNFINISHED = (
    ".crdownload", ".part", ".partial", ".incomplete", ".download", ".opdownload", ".filepart", ".aria2", ".tmp",
)  # fmt: skip
# Words in the names of files and folders, by network. A single file of SVD holds two.
WORDS = {
    "unet": ("unet",),
    "vae": ("vae", "svd_xt", "svd.", "video-diffusion"),
    "clip": ("image_encoder", "clip", "svd_xt", "svd.", "video-diffusion"),
    "whisper": ("whisper",),
    "audio2token": ("audio2token",),
    "audio2bucket": ("audio2bucket",),
    "rife": ("flownet", "rife"),
    "yoloface": ("yoloface",),
}
NETWORKS = tuple(WORDS)
GENERIC = ("model", "pytorch_model", "diffusion_pytorch_model", "unconfirmed")  # names that say nothing
# The published files, without what says their format or width.
PUBLISHED = {
    "unet": ("unet",),
    "vae": ("vae/diffusion_pytorch_model", "vae"),
    "clip": ("image_encoder/model",),
    "whisper": ("whisper-tiny/model",),
    "audio2token": ("audio2token",),
    "audio2bucket": ("audio2bucket",),
    "rife": ("flownet",),
    "yoloface": ("yoloface_v5m",),
}
SHARD = re.compile(r"-(\d+)-of-(\d+)\.\w+$")
MAX_INDEX_BYTES = 4 << 20
# First bytes of what people save or download in place of weights.
HEADS = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file it stands for; run `git lfs pull` in that folder"),
    (b"/annex/objects/", "a git-annex pointer, not the file it stands for; run `git annex get` on it"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"BZh", "compressed with bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"PK\x05\x06", "an empty zip archive; get the file again"),
    (b"GGUF", "a GGUF file, whose weights are quantised; get the fp16 or fp32 safetensors file"),
    (b"\x89HDF", "an HDF5 file, of TensorFlow or Keras; get the PyTorch or safetensors file"),
    (b"\x93NUMPY", "an array of NumPy; get the PyTorch or safetensors file"),
)


def cause_of(path, head):
    """Why a file is no checkpoint, in one line, from its first bytes."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; get the file again"
    if not head.strip(b"\0"):
        return "it begins with zeros, so it was never written; get the file again"
    for start, cause in HEADS:
        if head.startswith(start):
            return f"it is {cause}"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error", b"<script")):
        return "it is a web page (HTML), for instance of a login or an error; get the file itself"
    if head[257:262] == b"ustar":
        return "it is a tar archive; unpack it first"
    if text.startswith((b"{", b"[")):
        return _json_cause(path)
    return "expected safetensors, a torch zip archive or a torch pickle"


def _json_cause(path):
    """JSON where weights should be: the index of a sharded checkpoint, or a server's answer."""
    try:
        index = read_json(path, "an index of shards", MAX_INDEX_BYTES)
        shards = len(set(index["weight_map"].values()))
    except (SonicError, LookupError, TypeError, AttributeError):
        return "it is a JSON text, for instance the error message of a server; get the file itself"
    return f"it is the index of a sharded checkpoint of {shards} files; {UNSHARD}"


UNSHARD = "join the shards into one file, as save_pretrained(..., max_shard_size='20GB') writes it"


def plain(path):
    """Name of a file as it was published, in small letters, without endings and widths: unet.fp16.PTH -> unet."""
    name = path.name.lower()
    while True:
        stem, ending = os.path.splitext(name)
        if not ending or ending not in (*SUFFIXES, *UNFINISHED, ".fp16", ".fp32", ".bf16", ".index", ".json"):
            return name
        name = stem


def published(network, path):
    """Whether a file has the name under which a network was published, in a folder of the published name if any."""
    place = f"/{path.parent.name.lower()}/{plain(path)}"
    return any(place.endswith(f"/{name}") for name in PUBLISHED[network])


def spoken_of(path, src):
    """Networks that the name of a file or, if that says nothing, of its folder below `src` speaks of.

    All of them where neither says anything and the file has a name that any network may have.
    """
    inside = path.relative_to(src).parts if path.is_relative_to(src) else (path.name,)
    for part in reversed(inside):
        found = {network for network, words in WORDS.items() if any(word in part.lower() for word in words)}
        if found:
            return found
    generic = plain(path).startswith(GENERIC) or path.suffix.lower() in UNFINISHED
    return set(NETWORKS) if generic else set()


def find(src):
    """Files of a tree, or the single file `src`: (those to read, [(path, why it is not read)]).

    Folders behind links are entered, each once, and a file that is reached twice is read once.
    """
    src = Path(src)
    if not src.is_dir():
        if src.is_file():
            return [src], []
        what = "is no regular file" if src.exists() else "does not exist"
        raise InputMissingError(f"{src} {what}; expected a folder of checkpoints, or one file")
    files, faults, seen = [], [], set()

    def unreadable(error):
        faults.append((Path(error.filename), f"{error.filename} cannot be opened: {error.strerror}"))

    def is_new(path):
        status = os.stat(path)
        known = (status.st_dev, status.st_ino) in seen
        seen.add((status.st_dev, status.st_ino))
        return not known

    for folder, below, names in os.walk(src, onerror=unreadable, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith(PREFIX)) if is_new(folder) else []
        for name in sorted([*names, *(name for name in below if name.lower().endswith(SUFFIXES))]):
            path = Path(folder, name)
            known = path.suffix.lower() in SUFFIXES
            why = obstacle(path) if known or spoken_of(path, src) else None
            if why:
                faults.append((path, f"{path} {why}"))
            elif known and os.path.isfile(path) and is_new(path):
                files.append(path)
    if not files and not faults:
        raise InputMissingError(f"{src} holds no checkpoint ({', '.join(SUFFIXES)})")
    return files, faults


def obstacle(path):
    """Why a file of a tree is not read although it may be meant, or None."""
    suffix, is_file = path.suffix.lower(), os.path.isfile(path)
    if os.path.islink(path) and not os.path.exists(path):
        return f"is a link to {os.readlink(path)}, which does not exist"
    if suffix in SUFFIXES and os.path.isdir(path):
        return "is a folder, perhaps an archive that was unpacked; get the file itself"
    if suffix in UNFINISHED and is_file:
        return f"is an unfinished download ({suffix}); finish it, or get the file again"
    if os.path.exists(f"{path}.aria2"):
        return "is an unfinished download (its .aria2 is still there); finish it, or get the file again"
    if path.name.lower().endswith(".index.json") and is_file:
        return f"is the index of a sharded checkpoint; {UNSHARD}"
    shard = SHARD.search(path.name)
    if shard and suffix in SUFFIXES:
        return f"is part {int(shard[1])} of {int(shard[2])} of a sharded checkpoint; {UNSHARD}"
    if suffix not in SUFFIXES and is_file and looks_like_weights(path):
        return f"is not read, as its name ends unlike a checkpoint's; if it is one, rename it to {path.stem}.pth"
    return None


def looks_like_weights(path):
    """Whether a file begins as safetensors, a zip archive or a pickle does."""
    try:
        with open(path, "rb") as file:
            head = file.read(10)
    except OSError:
        return False
    return (head[8:9] == b"{" and not any(head[5:8])) or head.startswith((b"PK\x03\x04", b"\x80\x02"))


ZERO_SAMPLES, SAMPLE_BYTES = 16, 4096


def unwritten(path):
    """Whether the last quarter of a file is zeros: reserved on the disk by a download that never came there.

    Looked at in 16 places. Weights are no zeros, and files too short for that are left to the readers.
    """
    size = path.stat().st_size
    if size < ZERO_SAMPLES * SAMPLE_BYTES:
        return False
    with open(path, "rb") as file:
        for number in range(ZERO_SAMPLES - ZERO_SAMPLES // 4, ZERO_SAMPLES):
            file.seek((number + 1) * size // ZERO_SAMPLES - SAMPLE_BYTES)
            if file.read(SAMPLE_BYTES).strip(b"\0"):
                return False
    return True
