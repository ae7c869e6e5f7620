"""`sonic-ms generate` and `sonic-ms demo`."""

import os
import sys
import time
from pathlib import Path

from sonic_ms.errors import InputMissingError, UsageError, short
from sonic_ms.files.shipped import DEMO_AUDIO, DEMO_IMAGE
from sonic_ms.labels.commands import operator_flags, operator_of
from sonic_ms.options import add_flags, from_flags, owners, parse
from sonic_ms.pipeline import DEFAULT_MODEL, MODELS, all_options, load_model, model_of, shipped_models
from sonic_ms.runtime.choose import ENGINES

LOADING = ("model", "bundle", "engine", "precision", "delta")  # what a config file may say besides options


def generate_arguments(parser):
    parser.add_argument("--image", required=True, help="the portrait: any still image")
    parser.add_argument("--audio", required=True, help="the speech: any audio file, or a video's audio track")
    parser.add_argument("--output", required=True, help="the mp4 to write")
    _arguments(parser)


def demo_arguments(parser):
    parser.set_defaults(image=str(DEMO_IMAGE), audio=str(DEMO_AUDIO))
    parser.add_argument("--output", default="demo.mp4", help="the mp4 to write (default: demo.mp4)")
    _arguments(parser)


def _arguments(parser):
    add = parser.add_argument
    add("--model", help=f"{shipped_models()}, or the folder of a model (default: {DEFAULT_MODEL})")
    add("--bundle", help="folder that `sonic-ms export` wrote, instead of a model")
    add("--engine", help=f"{', '.join(ENGINES)}; without --bundle mindspore or, for sonic-edge, onnxruntime")
    add("--precision", choices=("fp32", "fp16"), help="of weights and activations, without a bundle (default: fp32)")
    add(
        "--delta",
        metavar="FILE",
        help="a person's mouth that personalize --sparse wrote, on the model it was made from",
    )
    add("--config", metavar="FILE", help="YAML file with the same names (min_resolution, ...); flags win over it")
    add("--overwrite", action="store_true", help="replace an existing output")
    add("--pieces", type=int, default=1,
        help="processes that make one video together, each with its own model; of sonic-edge, each with one thread "
        "(default: 1)")  # fmt: skip
    add_flags(parser.add_argument_group("options of the video"), all_options())
    operator_flags(parser)
    add("--resume", action="store_true", default=None,
        help="models that take hours: go on from the last finished step of this output")  # fmt: skip
    add("--no-resume", dest="resume", action="store_false", help="start again, and forget that step")


def settings(args):
    """({model, bundle, engine, precision, delta}, options): from --config, overridden by the flags that were given."""
    from sonic_ms.files.config import read_yaml

    values = read_yaml(args.config) if args.config else {}
    flags = from_flags(args, all_options())
    flags |= {name: getattr(args, name) for name in LOADING if getattr(args, name) is not None}
    values = {name: value for name, value in values.items() if name not in flags} | flags
    if values.get("bundle") is not None and "model" in values:
        raise UsageError(f"model {values['model']!r} and bundle {values['bundle']!r}: give one of them")
    loading = {"model": DEFAULT_MODEL, "bundle": None, "engine": "auto", "precision": "fp32", "delta": None}
    loading |= {name: values.pop(name) for name in LOADING if name in values}
    for name, value in loading.items():
        if not isinstance(value, str) and not (name in ("bundle", "delta") and value is None):
            raise UsageError(f"{args.config}: {name} is {short(value)}; expected a text")
    return loading, values


def generate(args):
    from sonic_ms.labels.save import save_video
    from sonic_ms.media.video import check_output

    operator = operator_of(args)
    loading, options = settings(args)
    check_output(args.output, args.overwrite)
    for path in (args.image, args.audio):
        if not os.path.isfile(path):
            raise InputMissingError(f"file {path}: no such file; check the path")
    name = model_of(loading["model"], loading["bundle"])
    if args.pieces < 1:
        raise UsageError(f"--pieces is {args.pieces}; expected at least 1")
    # bad values are refused before anything is loaded
    parse(MODELS[name].Options, options, args.config or "options", owners(all_options(), name))
    spread = {"processes": args.pieces} if args.pieces > 1 and MODELS[name].spreads else {}
    if args.pieces > 1 and not spread:
        return in_pieces(args, name, loading, options)
    state = _state(name, args)
    console = Console()
    started = time.perf_counter()
    console.wait_for(f"loading {name} ...")
    named = (loading[each] for each in ("model", "engine", "bundle", "precision", "delta"))
    model = load_model(*named, **spread)
    loaded = time.perf_counter()
    if state and args.resume is False:
        Path(state).unlink(missing_ok=True)
    try:
        with console:
            video = model.generate(
                args.image, args.audio, report=console.report, note=console.note, state=state, **options
            )
        path = save_video(video, args.output, args.overwrite, operator=operator)
    except KeyboardInterrupt:
        if state and os.path.exists(state):
            raise KeyboardInterrupt(
                f"interrupted; finished steps are kept in {state}: the same command with --resume goes on from there"
            ) from None
        raise
    compiling = video.timings.get("compile", 0.0)
    timings = {
        "load": loaded - started + compiling,
        "work": time.perf_counter() - loaded - compiling,
        **{stage: seconds for stage, seconds in video.timings.items() if stage != "compile"},
    }
    seconds = video.n_frames / video.fps
    if args.verbose:
        console.say(f"load {timings['load']:.1f} s, work {timings['work']:.1f} s for {seconds:.1f} s of video")
    print(path)
    return {
        "output": str(path),
        "model": name,
        "engine": model.generator.engine.info(),
        "frames": video.n_frames,
        "fps": video.fps,
        "size": list(video.size),
        "notes": video.notes,
        "seconds": {stage: round(value, 3) for stage, value in timings.items()},
    }


demo = generate


def in_pieces(args, name, loading, options):
    """`generate --pieces N`: what generate returns."""
    from tqdm import tqdm

    from sonic_ms.serve.pieces import make_in_pieces
    from sonic_ms.serve.settings import Settings

    started = time.perf_counter()
    settings = Settings(
        data=Path(args.output).parent, **loading, producer=args.producer, c2pa_cert=args.c2pa_cert,
        c2pa_key=args.c2pa_key,
    )  # fmt: skip
    with tqdm(unit="frame", desc=Path(args.output).name) as bar:

        def report(stage, done, total):
            if stage == "frames":
                bar.total = total
                bar.update(done - bar.n)

        made, engine = make_in_pieces(settings, args.pieces, args.image, args.audio, args.output, options, report)
    for text in made["notes"]:
        print(f"note: {text}", file=sys.stderr)
    print(args.output)
    return {
        "output": args.output,
        "model": name,
        "engine": engine,
        "pieces": args.pieces,
        "frames": made["frames"],
        "fps": made["fps"],
        "size": [made["width"], made["height"]],
        "notes": made["notes"],
        "seconds": {"whole": round(time.perf_counter() - started, 3), "work": round(made["work_seconds"], 3)},
    }


def _state(name, args):
    """File that keeps the finished steps of this output, None for models that are quick enough to start again."""
    from sonic_ms.media.video import check_name

    if not MODELS[name].resumable:
        if args.resume:
            raise UsageError(f"--resume is for models that take hours; {name} is quick enough to start again")
        return None
    state = f"{args.output}.progress.safetensors"
    check_name(state, "the file of finished steps")
    if args.resume is None and os.path.exists(state):
        raise UsageError(
            f"{state} holds the finished steps of an interrupted run; go on from them with --resume, or start again "
            "with --no-resume"
        )
    return state


class Console:
    """What a request says, on stderr: notes, a bar for stages with steps, and on a terminal what it is waiting for."""

    def __init__(self):
        self._bar, self._waiting = None, False

    def say(self, line):
        self.wait_for("")
        print(line, file=sys.stderr, flush=True)

    def note(self, text):
        self.say(f"note: {text}")

    def wait_for(self, text):
        """One line of a terminal that the next one replaces; logs and programs are spared it."""
        if sys.stderr.isatty() and (text or self._waiting):
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
            self._waiting = bool(text)

    def report(self, stage, done, total):
        self.wait_for("building graphs ..." if stage == "compile" and done == 0 else "")
        if total == 1 or stage == "frames":  # frames have the writer's bar
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=stage, unit="step")
        self._bar.update(done - self._bar.n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wait_for("")
        if self._bar is not None:
            self._bar.close()
