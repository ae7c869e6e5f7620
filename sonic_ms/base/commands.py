"""`sonic-ms check` and `sonic-ms fetch`."""

from sonic_ms.errors import UsageError


def check_arguments(parser):
    add = parser.add_argument
    add("--model", choices=("base",), default="base", help="default: base")
    add("--full-size", action="store_true", help="the published sizes; without it a few channels only")
    add("--unit", action="append", help="only this graph, repeatable (default: all)")
    add("--precision", choices=("fp32", "fp16"), default="fp32", help="of weights and activations (default: fp32)")


def check(args):
    from sonic_ms.base.check import HEADER, UNITS, check, format_row

    names = tuple(args.unit or UNITS)
    if not set(names) <= set(UNITS):
        raise UsageError(f"unit {', '.join(sorted(set(names) - set(UNITS)))} is not known; expected {', '.join(UNITS)}")
    print(HEADER)
    rows = []
    for row in check(names, args.full_size, precision=args.precision):
        rows.append(row)
        print(format_row(row), flush=True)
    return rows


def fetch_arguments(parser):
    parser.add_argument("model", choices=("base",), help="base")
    parser.add_argument("--dst", default="checkpoints", help="folder for the files (default: checkpoints)")
    parser.add_argument(
        "--accept-licences", action="store_true", help="do not ask: the licences were read and accepted"
    )


def fetch(args):
    from sonic_ms.base.fetch import fetch_base

    fetch_base(args.dst, args.accept_licences)
    print(args.dst)
    return {"folder": args.dst}
