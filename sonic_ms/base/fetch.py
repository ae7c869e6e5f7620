"""`sonic-ms fetch base`: the published files of Sonic from the Hugging Face hub, after their licences were shown.

Needs the extra `hub`. The hub's own settings hold: HF_ENDPOINT for a mirror, HF_TOKEN for repositories that ask for an
account. Interrupted downloads go on where they stopped.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.errors import AssetError, UsageError


@dataclass(frozen=True)
class Repository:
    """Files of one repository. folder: where they go, under the destination."""

    name: str
    folder: str
    files: tuple
    gigabytes: float
    licence: str


SVD = "stable-video-diffusion-img2vid-xt"
REPOSITORIES = (
    Repository(
        "LeonJoe13/Sonic",
        "",
        ("Sonic/unet.pth", "Sonic/audio2token.pth", "Sonic/audio2bucket.pth", "RIFE/flownet.pkl", "yoloface_v5m.pt"),
        6.7,
        "CC BY-NC-SA 4.0, no commercial use (Sonic); MIT (RIFE); GPL-3.0 (YOLOv5-face)",
    ),
    Repository(
        f"stabilityai/{SVD}",
        SVD,
        (
            "unet/config.json",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "image_encoder/config.json",
            "image_encoder/model.fp16.safetensors",
        ),
        1.5,
        f"Stability AI Community Licence; accept it once at https://huggingface.co/stabilityai/{SVD}",
    ),
    Repository("openai/whisper-tiny", "whisper-tiny", ("config.json", "model.safetensors"), 0.15, "MIT"),
)


def terms():
    """What the user agrees to, as text."""
    lines = ["The weights of sonic-base belong to others, under these licences:"]
    for one in REPOSITORIES:
        lines.append(f"  {one.name} ({one.gigabytes:g} GB): {one.licence}")
    return "\n".join(lines)


def fetch_base(folder, agreed=False):
    """Download every file into `folder`; returns the paths. agreed: the user has accepted `terms` already; else they
    are asked on the terminal. Raises UsageError when they do not agree, AssetError when a file cannot be had."""
    print(terms(), file=sys.stderr)
    if not agreed and not _asked():
        raise UsageError("the licences were not accepted, nothing was downloaded; --accept-licences answers beforehand")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise AssetError(
            f"huggingface_hub cannot be imported ({error}); install it: pip install 'sonic_ms[hub]'"
        ) from error
    folder, paths = Path(folder), []
    for repository in REPOSITORIES:
        for file in repository.files:
            try:
                got = hf_hub_download(repository.name, file, local_dir=folder / repository.folder)
            except Exception as error:  # the hub, the network and the disk each have their own kinds
                reason = " ".join(str(error).split())[:300]
                raise AssetError(
                    f"cannot fetch {file} of {repository.name} ({type(error).__name__}: {reason}); is the network "
                    "there, and was the licence accepted on the hub with the account of HF_TOKEN?"
                ) from error
            paths.append(Path(got))
    return paths


def _asked():
    if not sys.stdin.isatty():
        return False
    print("Do you accept them? [yes/no] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"
