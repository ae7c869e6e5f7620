"""The Ascend commands of `sonic-ms`: lint, audit-fp16, predict-speed, build-om, build-lite."""

import argparse
import sys

PRECISIONS = "fp16, mixed, fp32, bf16 or origin"  # the keys of atc.PRECISIONS, which cost an import of NumPy


def add_commands(commands):
    """Add them to the subparsers of the command line."""
    lint = commands.add_parser("lint", help="which unit of a bundle fits which Ascend chip, and why not")
    lint.add_argument("bundle", help="folder that sonic-ms export wrote")
    lint.add_argument(
        "--soc", action="append", help="chip, such as Ascend310P3; repeatable (default: one of each family)"
    )
    lint.add_argument("--precision", help=f"as for build-om: {PRECISIONS} (default: that of build-om)")
    _add_pairs(lint, "--atc-flag", "flag that ATC would get as well")
    lint.add_argument("--cann", help="version of CANN, such as 8.2; refuses chips it does not have")
    lint.add_argument("--memory-gb", type=float, help="memory of the board (default: the usual board of the chip)")
    lint.add_argument("--markdown", action="store_true", help="print a table of units and chips")
    lint.set_defaults(run=_lint)

    audit = commands.add_parser(
        "audit-fp16", help="what float16 does to each layer; writes the list ATC keeps in float32"
    )
    audit.add_argument("bundle", help="folder with float32 ONNX graphs")
    audit.add_argument("--units", type=_names, metavar="A,B", help="only these (default: all)")
    audit.set_defaults(run=_audit)

    speed = commands.add_parser(
        "predict-speed", help="roofline of a bundle on Ascend chips; a prediction, not measured"
    )
    speed.add_argument("bundle", help="folder with ONNX graphs")
    speed.add_argument("--soc", action="append", help="chip; repeatable (default: one of each family)")
    speed.set_defaults(run=_speed)

    om = commands.add_parser("build-om", help="compile the ONNX graphs of a bundle for a chip with CANN's atc")
    _add_build_options(om)
    om.add_argument("--precision", help=f"{PRECISIONS} (default: fp16, origin for an fp16 bundle)")
    _add_pairs(om, "--atc-flag", "another flag for ATC, such as op_debug_level=1; repeatable")
    om.add_argument("--host-cpu", help="aarch64 or x86_64, when the box's CPU is another than this one's")
    om.set_defaults(run=_build_om)

    lite = commands.add_parser("build-lite", help="convert the MINDIR graphs of a bundle for MindSpore Lite on a chip")
    _add_build_options(lite)
    lite.add_argument("--precision", help="fp16, fp32 or origin (default: what the audit allows)")
    _add_pairs(lite, "--ascend-context", "key of the converter's [ascend_context], such as plugin_custom_ops=All")
    lite.set_defaults(run=_build_lite)

    for parser in (lint, audit, speed, om, lite):
        parser.add_argument("-v", "--verbose", action="store_true", help="on an error, show where it happened")


def _add_build_options(parser):
    parser.add_argument("--bundle", required=True, metavar="DIR", help="folder that sonic-ms export wrote")
    parser.add_argument("--soc", required=True, help="chip: 'Ascend' and the name npu-smi info shows")
    parser.add_argument("--units", type=_names, metavar="A,B", help="only these (default: all)")
    parser.add_argument("--cann", help="version of CANN, for checks and the record (default: as installed)")
    parser.add_argument("--dry-run", action="store_true", help="only print the command lines; needs no CANN")


def _add_pairs(parser, option, text):
    parser.add_argument(option, action="append", type=_pair, default=[], metavar="NAME=VALUE", dest="extra", help=text)


def _pair(text):
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name.lstrip("-"), value


def _names(text):
    return [name for name in text.split(",") if name]


def _lint(args):
    from sonic_ms.ascend.lint import FITS, format_markdown, format_text, lint_bundle
    from sonic_ms.deploy.bundle import Bundle

    verdicts = lint_bundle(Bundle.load(args.bundle), args.soc, args.cann, args.memory_gb, args.precision, args.extra)
    print((format_markdown if args.markdown else format_text)(verdicts))
    bad = sum(one.verdict != FITS for one in verdicts)
    print(f"{len(verdicts) - bad} of {len(verdicts)} fit, by the conditions known without CANN", file=sys.stderr)


def _audit(args):
    from sonic_ms.ascend.audit import audit_bundle, format_audit
    from sonic_ms.deploy.bundle import Bundle

    for audit in audit_bundle(Bundle.load(args.bundle), args.units):
        print(format_audit(audit), flush=True)


def _speed(args):
    from sonic_ms.ascend.roofline import bundle_costs, format_prediction, predict
    from sonic_ms.deploy.bundle import Bundle

    costs = bundle_costs(Bundle.load(args.bundle))
    print(format_prediction(predict(costs, args.soc), costs))


def _build_om(args):
    from sonic_ms.ascend.atc import build_om

    build_om(args.bundle, args.soc, args.units, args.precision, args.host_cpu, args.cann, args.extra, args.dry_run)


def _build_lite(args):
    from sonic_ms.ascend.lite import build_lite

    build_lite(args.bundle, args.soc, args.units, args.precision, args.cann, args.extra, args.dry_run)
