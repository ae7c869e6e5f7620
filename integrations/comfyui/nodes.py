"""The nodes: what they are called, what goes in, what comes out. Ids and names are kept for ever: workflows hold them.

Names, ranges and meaning are those of ComfyUI_Sonic where it has them (SONIC_PreData, seed, inference_steps, ...).
"""

from __future__ import annotations

import os
import secrets
import shutil
from typing import Any

from . import host, interpreters, jobs, options
from .declare import Input, Node
from .host import Call
from .process import NodeError

FPS = 25.0  # of every video, but sonic-base's without interpolation
LABEL = "AIGC"  # key of an mp4 that says it is generated
MODEL, OPTIONS, DATA = "SONIC_MS_MODEL", "SONIC_MS_OPTIONS", "SONIC_PREDATA"
MADE = (("VIDEO", "video"), ("IMAGE", "image"), ("AUDIO", "audio"), ("FLOAT", "fps"))
IMAGE = Input("image", "IMAGE", "the portrait: one picture", optional=False)
AUDIO = Input("audio", "AUDIO", "the speech", optional=False)
ALL_FRAMES = Input(
    "all_frames", "BOOLEAN", "IMAGE has all frames (3 MB each at 512 x 512); off: the first alone", default=True
)
A_MODEL = Input("model", MODEL, "from the node Sonic MS Load Model; without it sonic-edge")


def models() -> list[str]:
    return [*options.DECLARED["models"], *host.model_folders()]


def load(call: Call, model: str, engine: str, precision: str, python: str) -> tuple[jobs.Model]:
    """Nothing is loaded here: the process that runs sonic_ms keeps the model of its last video."""
    name = model if model in options.DECLARED["models"] else host.model_path(model)
    if name is None:
        raise NodeError(f"model {model!r} is gone; expected one of {', '.join(models())}")
    return (jobs.Model(name, engine, precision, interpreters.find(python)),)


def default_model() -> jobs.Model:
    return jobs.Model(options.DECLARED["models"][0], python=interpreters.find(interpreters.DEFAULT))


def generate(
    call: Call,
    image: Any,
    audio: Any,
    model: jobs.Model | None = None,
    options_of_model: dict[str, Any] | None = None,
    all_frames: bool = True,
    **given: Any,
) -> tuple[Any, ...]:
    if problem := options.box_problem(given.get("face_box")):
        raise NodeError(problem)
    chosen = options.values("common", given) | (options_of_model or {})
    return jobs.make(call, model or default_model(), image, audio, chosen, many=all_frames)


def edge_options(call: Call, **given: Any) -> tuple[dict[str, Any]]:
    return (options.values("sonic-edge", given),)


def base_options(call: Call, **given: Any) -> tuple[dict[str, Any]]:
    return (options.values("sonic-base", given),)


def prepare(
    call: Call,
    image: Any,
    audio: Any,
    min_resolution: int = 512,
    duration: float = 10.0,
    expand_ratio: float = 0.5,
    clip_vision: Any = None,
    vae: Any = None,
    weight_dtype: Any = None,
) -> tuple[dict[str, Any]]:
    """clip_vision, vae and weight_dtype are PyTorch's: taken, so that workflows fit, and not used."""
    common = {"min_resolution": min_resolution, "duration": duration}
    ratio = {"sonic-edge": {"expand_ratio": expand_ratio}, "sonic-base": {"expand_ratio": expand_ratio, "crop": True}}
    return ({"sonic_ms": 1, "image": image, "audio": audio, "options": common, "by_model": ratio},)


def sample(
    call: Call,
    data_dict: dict[str, Any],
    model: jobs.Model | None = None,
    seed: int = 0,
    inference_steps: int = 25,
    dynamic_scale: float = 1.0,
    fps: float = FPS,
    all_frames: bool = True,
) -> tuple[Any, ...]:
    if "sonic_ms" not in data_dict:
        raise NodeError("data_dict is of ComfyUI_Sonic's own SONIC_PreData; connect the node Sonic MS Prepare instead")
    if fps != FPS:
        raise NodeError(
            f"fps is {fps:g}; expected {FPS:g}: mouth and sound keep time at that rate; change it after this node"
        )
    common = data_dict["options"] | {"seed": seed, "dynamic_scale": dynamic_scale}
    by_model = {name: dict(values) for name, values in data_dict["by_model"].items()}
    by_model["sonic-base"]["inference_steps"] = inference_steps
    return jobs.make(
        call, model or default_model(), data_dict["image"], data_dict["audio"], common, by_model, all_frames
    )


def save(call: Call, video: Any, filename_prefix: str = "video/sonic_ms") -> tuple[tuple[Any], dict[str, Any]]:
    """Copy the finished mp4: not a byte changes, so all its labels hold. It gets its name when it is whole."""
    source = video.get_stream_source() if hasattr(video, "get_stream_source") else None
    if not isinstance(source, str):
        raise NodeError("video is not a file, so it holds no labels; connect a video of sonic_ms, or use Save Video")
    if not os.path.isfile(source):
        raise NodeError(f"the video {source} is gone; change an input of the node that made it and run it again")
    if LABEL not in call.metadata(source):
        raise NodeError(f"the video {source} carries no label {LABEL}; connect a video of sonic_ms, or use Save Video")
    folder, name, counter, below = call.output(filename_prefix, video.get_dimensions())
    target = folder / f"{name}_{counter:05}_.mp4"
    partial = folder / f".sonic_ms-{secrets.token_hex(6)}.mp4"
    try:
        shutil.copyfile(source, partial)
        os.replace(partial, target)
    except OSError as error:
        raise NodeError(f"cannot write {target} ({error.strerror}); free some space or choose another prefix") from None
    finally:
        partial.unlink(missing_ok=True)
    shown = {"filename": target.name, "subfolder": below, "type": "output"}
    return (video,), {"images": [shown], "animated": (True,)}


def declared() -> list[Node]:
    """All nodes, SONIC_PreData only where no other extension has it."""
    found = list(OWN)
    if not host.has_node("SONIC_PreData"):
        found.append(_preparing("SONIC_PreData", "SONIC_PreData (sonic_ms)"))
    return found


def _preparing(id: str, title: str) -> Node:
    return Node(
        id,
        title,
        "Portrait, speech and what is done to them before the sampler, with the inputs of ComfyUI_Sonic.",
        (
            AUDIO,
            IMAGE,
            Input("min_resolution", "INT", "short side of the video", default=512, low=128, high=2048, step=64),
            Input("duration", "FLOAT", "seconds of the speech, at most", default=10.0, low=1.0, high=1e11, step=0.1),
            Input("expand_ratio", "FLOAT", "room around the face", default=0.5, low=0.1, high=1.0, step=0.1),
            Input("clip_vision", "CLIP_VISION", "not used"),
            Input("vae", "VAE", "not used"),
            Input("weight_dtype", "DTYPE", "not used"),
        ),
        ((DATA, "data_dict"),),
        prepare,
    )


OWN = (
    Node(
        "SonicMSLoader",
        "Sonic MS Load Model",
        "Which model makes the video, on which engine and in which interpreter.",
        (
            Input("model", "COMBO", "one that comes with sonic_ms, or a folder in models/sonic_ms: a model or a bundle",
                  default=options.DECLARED["models"][0], choices=models),
            Input("engine", "COMBO", "what runs the networks", default="auto",
                  choices=lambda: list(options.DECLARED["engines"])),
            Input("precision", "COMBO", "of weights and activations; a bundle has its own", default="fp32",
                  choices=lambda: ["fp32", "fp16"]),
            Input("python", "COMBO", f"interpreter that has sonic_ms: of {interpreters.VARIABLE}, or of the command",
                  default=interpreters.DEFAULT, choices=interpreters.choices),
        ),
        ((MODEL, "model"),),
        load,
    ),
    Node(
        "SonicMSGenerate",
        "Sonic MS Talking Video",
        "One portrait and one speech recording become a talking video.",
        (
            IMAGE,
            AUDIO,
            A_MODEL,
            Input("options_of_model", OPTIONS, "from the node of the model's own options"),
            ALL_FRAMES,
            *options.inputs("common"),
        ),
        MADE,
        generate,
        also_known=options.aliases("common"),
    ),
    Node("SonicMSEdgeOptions", "Sonic MS Options of sonic-edge", "What only sonic-edge has.",
         options.inputs("sonic-edge"), ((OPTIONS, "options_of_model"),), edge_options,
         also_known=options.aliases("sonic-edge")),
    Node("SonicMSBaseOptions", "Sonic MS Options of sonic-base", "What only sonic-base has.",
         options.inputs("sonic-base"), ((OPTIONS, "options_of_model"),), base_options,
         also_known=options.aliases("sonic-base")),
    _preparing("SonicMSPreData", "Sonic MS Prepare"),
    Node(
        "SonicMSSampler",
        "Sonic MS Sampler",
        "The video of prepared data, with the inputs of ComfyUI_Sonic's sampler.",
        (
            Input("data_dict", DATA, "from the node Sonic MS Prepare", optional=False),
            A_MODEL,
            Input("seed", "INT", "same seed, same video", default=0, low=0, high=2**63 - 1, reseed=True),
            Input("inference_steps", "INT", "of sonic-base", default=25, low=1, high=1000),
            Input("dynamic_scale", "FLOAT", "strength of the mouth's motion", default=1.0, low=0.5, high=2.0, step=0.1),
            Input("fps", "FLOAT", "frames a second: 25", default=FPS, low=5.0, high=120.0, step=0.5),
            ALL_FRAMES,
        ),
        MADE,
        sample,
    ),
    Node(
        "SonicMSSaveVideo",
        "Sonic MS Save Video",
        "Copy the finished mp4 to the output folder with all its labels; Save Video drops the signed one.",
        (
            Input("video", "VIDEO", "a video of sonic_ms", optional=False),
            Input("filename_prefix", "STRING", "folder and begin of the name", default="video/sonic_ms"),
        ),
        (("VIDEO", "video"),),
        save,
        is_output=True,
    ),
)  # fmt: skip
