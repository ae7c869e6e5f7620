"""The `sonic-ms` command: parse, call one function, turn errors into one line and an exit code.

Only the module of the command that was asked for is imported, so help and mistakes answer at once. Such a module has
two functions a command: `COMMAND_arguments(parser)` and `COMMAND(args)`, which returns what `--json` writes.
"""

import argparse
import importlib
import json
import signal
import sys
import threading
import traceback

from sonic_ms import __version__
from sonic_ms.errors import OutputError, SonicError, exit_code, of_the_host
from sonic_ms.files.streams import usable

COMMANDS = {  # name -> (module, help)
    "generate": ("sonic_ms.commands", "make a talking video"),
    "demo": ("sonic_ms.commands", "make a video from the portrait and the speech that come with the package"),
    "serve": ("sonic_ms.serve.commands", "make videos for others: jobs over HTTP, and a page"),
    "batch": ("sonic_ms.serve.commands", "make the videos of a list, several at once"),
    "keys": ("sonic_ms.serve.commands", "make, list and revoke the keys of a service"),
    "articulate": ("sonic_ms.edge.commands", "write the curves of a mouth that says a recording, for other faces"),
    "live": ("sonic_ms.live.commands", "a face that speaks while you speak, in the browser or over a WebSocket"),
    "label": ("sonic_ms.labels.commands", "show, check or write what a video says of its origin"),
    "evaluate": ("sonic_ms.evaluate.commands", "measure a talking video against its speech and its photo"),
    "export": ("sonic_ms.deploy.commands", "write a model's graphs as MINDIR and ONNX, for the other engines"),
    "verify": ("sonic_ms.deploy.commands", "run a bundle's graphs on several engines and compare"),
    "fetch": ("sonic_ms.base.commands", "download the published weights of sonic-base, for the converter"),
    "convert": ("sonic_ms.convert.commands", "convert the published PyTorch checkpoints to a folder of sonic-base"),
    "check": ("sonic_ms.base.commands", "measure whether this machine can run sonic-base, without weights"),
    "train": ("sonic_ms.train.commands", "train a part of a model from a recipe"),
    "personalize": ("sonic_ms.train.commands", "fine-tune sonic-edge's mouth on a clip of one person"),
    "small": ("sonic_ms.small.commands", "smaller models: cut channels and heads, round weights, compare runs"),
    "data": ("sonic_ms.data.commands", "training data for sonic-base"),
    "lint": ("sonic_ms.ascend.commands", "which unit of a bundle fits which Ascend chip, and why not"),
    "audit-fp16": ("sonic_ms.ascend.commands", "what float16 does to each layer; writes what ATC keeps in float32"),
    "predict-speed": ("sonic_ms.ascend.commands", "roofline of a bundle on Ascend chips; predicted, not measured"),
    "build-om": ("sonic_ms.ascend.commands", "compile the ONNX graphs of a bundle for a chip with CANN's atc"),
    "build-lite": ("sonic_ms.ascend.commands", "convert the MINDIR graphs of a bundle for MindSpore Lite on a chip"),
}


def build_parser(only=None):
    """The parser; with the arguments of one command, or of all."""
    parser = argparse.ArgumentParser(
        prog="sonic-ms", description="One portrait and one speech recording become a talking video."
    )
    parser.add_argument("--version", action="version", version=f"sonic-ms {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", help="show timings and, on an error, where it happened")
    common.add_argument("--json", metavar="FILE", help="write what was done or measured to this file as well")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, text) in COMMANDS.items():
        wanted = only is None or only == name
        command = commands.add_parser(name, help=text, description=text, parents=[common] if wanted else [])
        if wanted:
            function = name.replace("-", "_")
            getattr(importlib.import_module(module), f"{function}_arguments")(command)
            command.set_defaults(run=lambda args, m=module, f=function: getattr(importlib.import_module(m), f)(args))
    return parser


def underscored(arguments):
    """Arguments with `--some_flag=value` written `--some-flag=value`: users of Sonic type both."""
    fixed = []
    for text in arguments:
        name, equals, value = text.partition("=")
        fixed.append(name.replace("_", "-") + equals + value if text.startswith("--") else text)
    return fixed


def one_line(error):
    """The message of an error as one printable line per problem: names of files may hold anything, half a UTF-8 too."""
    lines = str(error).split("\n")
    return "\n".join(line.encode("utf-8", "backslashreplace").decode() for line in lines)


def write_report(path, report):
    """Write a report as JSON; with None, only see whether that will be possible. Raises OutputError."""
    try:
        with open(path, "a" if report is None else "w", encoding="utf-8") as file:
            file.write("" if report is None else json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write the report {path}: {error.strerror}; choose another --json") from error


def main(argv=None):
    """Entry point; returns the exit code of errors.EXIT_CODES, 1 for a defect of ours, 130 for Ctrl-C."""
    argv = underscored(sys.argv[1:] if argv is None else argv)
    if threading.current_thread() is threading.main_thread():
        # MindSpore answers Ctrl-C with a SIGTERM to its own process; all of them have to leave no partial file
        for name in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) != signal.SIG_IGN:  # as nohup says
                signal.signal(name, signal.default_int_handler)
    args = None
    with usable():
        try:
            args = build_parser(next((text for text in argv if not text.startswith("-")), "")).parse_args(argv)
            if args.json:
                write_report(args.json, None)
            report = args.run(args)
            if args.json:
                write_report(args.json, {} if report is None else report)
        except KeyboardInterrupt as error:
            print(str(error) or "interrupted; nothing half-written is left behind", file=sys.stderr)
            return 130
        except Exception as error:
            return failed(args, of_the_host(error))
        return 0


def failed(args, error):
    """Say what went wrong, write what was measured before it; the exit code. args: None while they are parsed."""
    if args and args.json and hasattr(error, "report"):
        write_report(args.json, error.report)
    if args and args.verbose:
        traceback.print_exception(error)
    line = one_line(error)
    if not isinstance(error, SonicError):
        line = f"unexpected {type(error).__name__}: {line}; run again with -v and report it"
    print(f"sonic-ms: {line}", file=sys.stderr)
    return exit_code(error)
