"""`sonic-ms articulate`: the curves of a mouth, without a face."""

import argparse
from pathlib import Path

from sonic_ms.edge import articulate as speech
from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.units import NAME
from sonic_ms.errors import InputMissingError, OutputError, UsageError
from sonic_ms.options import parse
from sonic_ms.pipeline import DEFAULT_MODEL, load_model, model_of
from sonic_ms.runtime.choose import ENGINES


def articulate_arguments(parser):
    add = parser.add_argument
    add("--audio", required=True, help="the speech: any audio file, or a video's audio track")
    add("--out", required=True, help="file to write: .npz with one array a curve, .json or .csv; 25 values a second")
    add("--arkit", action="store_true", help="ARKit's blend shapes, 0 to 1, instead of sonic-edge's curves")
    add("--model", help=f"folder of a sonic-edge (default: {DEFAULT_MODEL})")
    add("--bundle", help="folder that `sonic-ms export` wrote, instead of a model")
    add("--engine", default="auto", help=f"{', '.join(ENGINES)}; all but mindspore need --bundle (default: auto)")
    add("--overwrite", action="store_true", help="replace an existing output")
    for name in speech.ABOUT_SOUND:
        field, flag = EdgeOptions.model_fields[name], f"--{name.replace('_', '-')}"
        if isinstance(field.default, bool):
            add(flag, dest=name, action=argparse.BooleanOptionalAction, default=None, help=field.description)
        else:
            add(flag, dest=name, type=float, help=f"{field.description} (default: {field.default})")


def articulate(args):
    options = {name: getattr(args, name) for name in speech.ABOUT_SOUND if getattr(args, name) is not None}
    parse(EdgeOptions, options)
    speech.check_format(args.out)
    if Path(args.out).exists() and not args.overwrite:
        raise OutputError(f"{args.out} exists; choose another name or give --overwrite")
    if not Path(args.audio).is_file():
        raise InputMissingError(f"file {args.audio}: no such file; check the path")
    name = model_of(args.model or DEFAULT_MODEL, args.bundle)
    if name != NAME:
        raise UsageError(f"{name} has no curves of a mouth; expected {NAME}")
    generator = load_model(args.model or DEFAULT_MODEL, args.engine, args.bundle).generator
    curves = speech.articulate(args.audio, generator=generator, arkit=args.arkit, **options)
    path = speech.write_curves(curves, args.out)
    print(path)
    return {"output": str(path), "frames": len(next(iter(curves.values()))), "curves": list(curves)}
