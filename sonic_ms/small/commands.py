"""`sonic-ms small`: prune, quantize, report."""

from sonic_ms.errors import UsageError
from sonic_ms.small.quantize import KINDS


def small_arguments(parser):
    commands = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    prune = commands.add_parser("prune", help="cut channels or heads out of a model, which is to be trained on")
    add = prune.add_argument
    add("--model", default="shipped", help="folder of a model (default: the shipped sonic-edge)")
    add("--widths", help="channels to keep at the painter's three resolutions, as 8,24,32")
    add("--dead", action="store_true", help="cut the painter's channels that are always 0: nothing changes")
    add("--keep", type=float, metavar="SHARE", help="share of heads and inner channels to keep: of sonic-edge's ear, "
        "of sonic-base's UNet, CLIP, Whisper and audio networks")  # fmt: skip
    add("--random", type=int, metavar="SEED", help="keep random ones instead of the strongest, for comparison")
    add("--out", required=True, help="folder of the new model, must not exist")
    quantize = commands.add_parser("quantize", help="round a painter's weights; simulated, the file stays float32")
    quantize.add_argument(
        "--model", default="shipped", help="folder of a model of sonic-edge (default: the shipped one)"
    )
    quantize.add_argument("--to", choices=KINDS, required=True, help="kind of the weights")
    quantize.add_argument("--out", required=True, help="folder of the new model, must not exist")
    report = commands.add_parser("report", help="tables and a plot of what runs of a comparison found")
    report.add_argument("runs", help="folder of the runs' folders")
    report.add_argument("--out", help="folder for report.md and report.png (default: that of the runs)")


def small(args):
    return {"prune": prune, "quantize": quantize, "report": report}[args.task](args)


def prune(args):
    """Cut channels or heads and write the model."""
    if (args.dead, bool(args.widths), args.keep is not None).count(True) != 1:
        raise UsageError("give one of --widths, --dead and --keep")
    if args.keep is not None:
        from sonic_ms.small.network import cut_folder

        result = cut_folder(args.model, args.out, args.keep, args.random)
        print(args.out)
        return result
    widths = None if args.dead else _three(args.widths)
    from sonic_ms.small.folders import prune_folder

    result = prune_folder(args.model, args.out, widths, args.random)
    print(args.out)
    return result


def _three(text):
    parts = text.split(",")
    if len(parts) != 3 or not all(part.isdecimal() and 0 < int(part) < 10_000 for part in parts):
        raise UsageError(f"widths {text!r}; expected three numbers, as 8,24,32")
    return tuple(map(int, parts))


def quantize(args):
    """Round the weights and write the model."""
    from sonic_ms.small.folders import quantize_folder

    result = quantize_folder(args.model, args.out, args.to)
    print(args.out)
    return result


def report(args):
    """Write report.md and report.png."""
    from sonic_ms.small.report import write_report

    result = write_report(args.runs, args.out or args.runs)
    print(result["report"])
    return result
