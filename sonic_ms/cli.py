"""The `sonic-ms` command: parse, call one function, turn errors into one line and an exit code.

Nothing heavy is imported before the arguments are understood, so help and mistakes answer at once.
"""

import argparse
import contextlib
import json
import signal
import sys
import threading
import traceback
from pathlib import Path

from sonic_ms import __version__
from sonic_ms.ascend.commands import add_commands as add_ascend_commands
from sonic_ms.errors import SonicError, UsageError, exit_code

EXAMPLES = Path(__file__).parent / "examples"
DEMO_IMAGE, DEMO_AUDIO = EXAMPLES / "portrait.jpg", EXAMPLES / "speech.wav"


def _box(text):
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h")
    return values


def _add_generate_options(parser):
    """One flag per field of GenerateOptions. A flag that is not given leaves the value to --config or the default."""
    add = parser.add_argument
    add("--model", help="sonic-edge, or the folder of a converted sonic-base (default: sonic-edge)")
    add("--bundle", help="folder that `sonic-ms export` wrote, instead of a model")
    add("--duration", type=float, help="use only the first so many seconds of the audio (default: all)")
    add("--min-resolution", type=int, help="short side of the video in pixels (default: 512)")
    add("--keep-resolution", action="store_true", default=None, help="keep the photo's own size")
    add("--expand-ratio", type=float, help="room around the face that may move, share of its size (default: 0.2)")
    add("--dynamic-scale", type=float, help="strength of the mouth's motion (default: 1.0)")
    add("--motion-scale", type=float, help="strength of head motion, blinks and brows; 0 is still (default: 1.0)")
    add("--no-lip-sync-correction", dest="lip_sync_correction", action="store_false", default=None,
        help="do not measure and remove a lag between mouth and speech")  # fmt: skip
    add("--no-smooth-motion", dest="smooth_motion", action="store_false", default=None,
        help="do not smooth the mouth's motion over time")  # fmt: skip
    add("--align-offset", type=float, help="seconds; positive makes the mouth later (default: 0.0)")
    add("--seed", type=int, help="of blinks and head motion (default: 0)")
    add("--face", help="'largest' or the index of a face, 0 is the largest (default: largest)")
    add("--face-box", type=_box, metavar="X,Y,W,H", help="where the face is, in photo pixels; skips the detector")
    add("--max-audio-seconds", type=float, help="longer recordings are refused (default: 3600)")
    add("--engine", help="auto, mindspore, onnxruntime, lite or acl; all but mindspore need --bundle (default: auto)")
    add("--config", metavar="FILE", help="YAML file with the same names (min_resolution, ...); flags win over it")
    add("--overwrite", action="store_true", help="replace an existing output")
    add("-v", "--verbose", action="store_true", help="show timings and, on an error, where it happened")
    base = parser.add_argument_group("sonic-base only").add_argument
    base("--inference-steps", type=int, help="denoising steps (default: 25)")
    base("--image-guidance", type=float, help="how strictly to follow the photo (default: 2.0)")
    base("--audio-guidance", type=float, help="how strictly to follow the speech (default: 7.5)")
    base("--overlap", type=int, help="frames two neighbouring windows share (default: 0)")
    base("--shift-offset", type=int, help="frames by which the windows move from step to step (default: 7)")
    base("--decode-chunk-size", type=int, help="frames decoded together (default: 8)")
    base("--crop", action="store_true", default=None, help="use only a square around the face")
    base("--no-interpolation", dest="interpolation", action="store_false", default=None,
         help="12.5 frames a second instead of 25")  # fmt: skip
    base("--one-branch-at-a-time", dest="batch_branches", action="store_false", default=None,
         help="a third of the memory, slower")  # fmt: skip
    base("--resume", action="store_true", default=None, help="go on from the last finished step of this output")


def build_parser():
    parser = argparse.ArgumentParser(
        prog="sonic-ms", description="One portrait and one speech recording become a talking video."
    )
    parser.add_argument("--version", action="version", version=f"sonic-ms {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    generate = commands.add_parser("generate", help="make a talking video")
    generate.add_argument("--image", required=True, help="the portrait: any still image")
    generate.add_argument("--audio", required=True, help="the speech: any audio file, or a video's audio track")
    generate.add_argument("--output", required=True, help="the mp4 to write")
    _add_generate_options(generate)
    generate.set_defaults(run=_generate)

    demo = commands.add_parser("demo", help="make a video from the portrait and the speech that come with the package")
    demo.add_argument("--output", default="demo.mp4", help="the mp4 to write (default: demo.mp4)")
    _add_generate_options(demo)
    demo.set_defaults(run=_generate, image=str(DEMO_IMAGE), audio=str(DEMO_AUDIO))

    export = commands.add_parser("export", help="write a model's graphs as MINDIR and ONNX, for the other engines")
    export.add_argument("--model", default="sonic-edge", help="sonic-edge, or the folder of a model")
    export.add_argument("--format", help="mindir, onnx or both, as mindir,onnx (default: both)")
    export.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="of weights and activations")
    export.add_argument("--gear", action="append", default=[],
        help="sonic-edge: side of the moving square, repeatable (default: all); sonic-base: WIDTHxHEIGHT")  # fmt: skip
    export.add_argument("--decode-chunk-size", type=int, metavar="N",
        help="sonic-base: frames the decoder's graph takes at once; fewer need less memory (default: 8)")  # fmt: skip
    export.add_argument("--for-cpu", action="store_true",
        help="sonic-base: a UNet that MindSpore runs faster on a CPU, in more memory; for nothing else")  # fmt: skip
    export.add_argument("--out", required=True, help="folder of the bundle, must not exist")
    export.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    export.set_defaults(run=_export)

    verify = commands.add_parser("verify", help="run every graph of a bundle on several engines and compare")
    verify.add_argument("bundle", help="folder that `sonic-ms export` wrote")
    verify.add_argument("--engines", default="mindspore,onnxruntime", help="default: mindspore,onnxruntime")
    verify.add_argument("--units", help="only these, separated by commas")
    verify.add_argument("--json", metavar="OUT", help="write the figures to this file as well")
    verify.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    verify.set_defaults(run=_verify)

    evaluate = commands.add_parser("evaluate", help="measure a talking video against its speech and its photo")
    evaluate.add_argument("video", help="the mp4 to measure")
    evaluate.add_argument("--audio", required=True, help="the speech it was made from")
    evaluate.add_argument("--source", required=True, help="the photo it was made from")
    evaluate.add_argument("--phonemes", help='JSON list of {"ipa", "start", "end"}, seconds; "" is silence')
    evaluate.add_argument("--json", metavar="OUT", help="write the figures to this file as well")
    evaluate.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    evaluate.set_defaults(run=_evaluate)

    check = commands.add_parser("check", help="measure whether this machine can run sonic-base, without weights")
    check.add_argument("--model", choices=("base",), default="base", help="default: base")
    check.add_argument("--full-size", action="store_true", help="the published sizes; without it a few channels only")
    check.add_argument("--unit", action="append", help="only this graph, repeatable (default: all)")
    check.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="of weights and activations")
    check.add_argument("--json", metavar="OUT", help="write the figures to this file as well")
    check.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    check.set_defaults(run=_check)

    fetch = commands.add_parser("fetch", help="download the published weights of sonic-base, for the converter")
    fetch.add_argument("model", choices=("base",), help="base")
    fetch.add_argument("--dst", default="checkpoints", help="folder for the files (default: checkpoints)")
    fetch.add_argument("--accept-licences", action="store_true", help="do not ask: the licences were read and accepted")
    fetch.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    fetch.set_defaults(run=_fetch)

    train = commands.add_parser("train", help="train a part of a model from a recipe")
    train.add_argument("config", help="YAML file, see configs/")
    train.add_argument("--out", help="folder for data, checkpoints, logs and weights (default: runs/RECIPE)")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    train.add_argument("--plan", action="store_true", help="only predict the memory of a device (base_finetune)")
    train.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    train.set_defaults(run=_train)

    personalize = commands.add_parser("personalize", help="fine-tune sonic-edge's mouth on a clip of one person")
    personalize.add_argument("--video", required=True, help="clip of one person who speaks, facing the camera")
    personalize.add_argument("--image", help="photo of that person to start from (default: the clip's best frame)")
    personalize.add_argument("--out", required=True, help="folder of the new model, must not exist")
    personalize.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    personalize.set_defaults(run=_personalize)

    data = commands.add_parser("data", help="training data for sonic-base").add_subparsers(
        dest="task", metavar="TASK", required=True
    )
    build = data.add_parser("build", help="cut checked clips out of talking-head videos, as MindRecord shards")
    build.add_argument("videos", nargs="+", help="folders, video files, or lists of them (.txt)")
    build.add_argument("--out", required=True, help="folder of the shards; one that is there is continued")
    build.add_argument("--model", help="folder of a converted sonic-base: store latents, embeddings, audio states too")
    build.add_argument("--config", metavar="FILE", help="YAML file with other limits, see configs/data.yaml")
    build.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")
    build.set_defaults(run=_data_build)
    add_ascend_commands(commands)
    return parser


OPTION_FLAGS = (
    "model", "bundle", "engine", "duration", "min_resolution", "keep_resolution", "expand_ratio",
    "dynamic_scale", "motion_scale", "lip_sync_correction", "smooth_motion", "align_offset", "seed", "face",
    "face_box", "max_audio_seconds", "inference_steps", "image_guidance", "audio_guidance", "overlap",
    "shift_offset", "decode_chunk_size", "crop", "interpolation", "batch_branches",
)  # fmt: skip


def _options(args):
    """(model, bundle, engine, options): from --config, overridden by the flags that were given."""
    from sonic_ms.files.config import read_yaml

    values = read_yaml(args.config) if args.config else {}
    values.update({name: getattr(args, name) for name in OPTION_FLAGS if getattr(args, name) is not None})
    bundle = values.pop("bundle", None)
    if bundle is not None and "model" in values:
        raise UsageError(f"model {values['model']!r} and bundle {bundle!r}: give one of them")
    return values.pop("model", "sonic-edge"), bundle, values.pop("engine", "auto"), values


def _generate(args):
    import time

    from sonic_ms.media.video import check_output

    name, bundle, engine, options = _options(args)
    check_output(args.output, args.overwrite)
    for path in (args.image, args.audio):
        _require_file(path)

    from sonic_ms.media.video import save_video
    from sonic_ms.pipeline import check_options, is_base, load_model, print_notes

    base = is_base(name, bundle)
    check_options(base, options, args.config or "options")  # refuse bad values before anything is loaded
    if base:  # hours of work: every finished step is kept beside the output until the video is done
        options["resume"] = f"{args.output}.progress.npz"
        if not args.resume:
            Path(options["resume"]).unlink(missing_ok=True)
    elif args.resume:
        raise UsageError("--resume is for sonic-base; sonic-edge is quick enough to start again")
    started = time.perf_counter()
    model = load_model(name, engine, bundle)
    loaded = time.perf_counter()
    with _step_bar() as bar:
        # sonic-edge streams: its frames are its progress
        report = {"progress": bar, "announce": _announce} if base else {}
        video = model.generate(image=args.image, audio=args.audio, **report, **options)
    print_notes(model.notes)
    path = save_video(video, args.output, overwrite=args.overwrite)
    if args.verbose:
        load = loaded - started + model.compile_seconds
        work = time.perf_counter() - loaded - model.compile_seconds
        seconds = video.n_frames / video.fps
        print(f"load {load:.1f} s, work {work:.1f} s for {seconds:.1f} s of video", file=sys.stderr)
    print(path)


def _announce(estimate):
    """Say on stderr what a sonic-base video will take."""
    parts = [f"{estimate.gigabytes:.1f} GB of memory"]
    if estimate.seconds is not None:
        minutes = max(1, round(estimate.seconds / 60))
        parts.insert(0, f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} hours")
    print(f"this will take about {' and '.join(parts)}", file=sys.stderr)


@contextlib.contextmanager
def _step_bar():
    """A function (step, steps) that shows the denoising steps on stderr; nothing appears before it is called."""
    from tqdm import tqdm

    bars = []

    def report(step, steps):
        if not bars:
            bars.append(tqdm(total=steps, desc="denoising", unit="step"))
        bars[0].update(step - bars[0].n)

    try:
        yield report
    finally:
        for bar in bars:
            bar.close()


def _require_file(path):
    from sonic_ms.errors import InputMissingError

    if not Path(path).is_file():
        raise InputMissingError(f"file {path}: no such file; check the path")


def _evaluate(args):
    from sonic_ms.evaluate import evaluate, format_table

    figures = evaluate(args.video, args.audio, args.source, args.phonemes)
    print(format_table(figures))
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")


def _export(args):
    from sonic_ms.deploy.export import FORMATS, export_model, to_stderr

    formats = tuple(args.format.split(",")) if args.format else None
    if not set(formats or ()) <= set(FORMATS):
        raise UsageError(f"format {args.format!r}; expected {', '.join(FORMATS)} or both")
    gears, chunk = args.gear, args.decode_chunk_size
    export_model(args.model, args.out, formats, args.dtype, gears, chunk, to_stderr, args.for_cpu)
    print(args.out)


def _verify(args):
    from sonic_ms.deploy.bundle import Bundle
    from sonic_ms.deploy.verify import format_rows, verify
    from sonic_ms.errors import EngineError

    bundle = Bundle.load(args.bundle)
    units = args.units.split(",") if args.units else None
    if units and not set(units) <= set(bundle.units):
        raise UsageError(f"units {args.units!r}; the bundle has {', '.join(bundle.units)}")
    rows = verify(bundle, args.engines.split(","), units)
    print(format_rows(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    failed = sum(not row["passed"] for row in rows)
    if failed:
        raise EngineError(f"{failed} of {len(rows)} outputs differ by more than their bar")


def _check(args):
    from sonic_ms.base.check import HEADER, UNITS, check, format_row

    names = tuple(args.unit or UNITS)
    if not set(names) <= set(UNITS):
        raise UsageError(f"unit {', '.join(sorted(set(names) - set(UNITS)))} is not known; expected {', '.join(UNITS)}")
    print(HEADER)
    rows = []
    for row in check(names, args.full_size, precision=args.precision):
        rows.append(row)
        print(format_row(row), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


def _fetch(args):
    from sonic_ms.base.fetch import fetch_base

    fetch_base(args.dst, args.accept_licences)
    print(args.dst)


def _train(args):
    from sonic_ms.train.run import memory_table, train

    print(memory_table(args.config) if args.plan else train(args.config, args.out, args.resume))


def _personalize(args):
    _require_file(args.video)
    from sonic_ms.train.edge.personalize import format_report, personalize

    print(format_report(personalize(args.video, args.out, args.image)))
    print(args.out)


def _data_build(args):
    from sonic_ms.data.build import build, summary
    from sonic_ms.data.config import DataConfig
    from sonic_ms.files.config import from_dict, read_yaml

    values = read_yaml(args.config) if args.config else {}
    config = from_dict(DataConfig, values, args.config or "options")
    index = build(args.videos, args.out, config, args.model, note=lambda line: print(f"note: {line}", file=sys.stderr))
    print(summary(index))
    print(index.path)


def main(argv=None):
    """Entry point; returns the exit code of errors.EXIT_CODES, 1 for a defect of ours, 130 for Ctrl-C."""
    args = build_parser().parse_args(argv)
    if threading.current_thread() is threading.main_thread():
        # MindSpore answers Ctrl-C with a SIGTERM to its own process; both have to leave no partial file
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left behind", file=sys.stderr)
        return 130
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        if isinstance(error, SonicError):
            print(f"sonic-ms: {error}", file=sys.stderr)
        else:
            print(f"sonic-ms: unexpected {type(error).__name__}: {error}; run again with -v and report it",
                  file=sys.stderr)  # fmt: skip
        return exit_code(error)
    return 0
