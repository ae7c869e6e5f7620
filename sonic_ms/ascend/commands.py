"""The Ascend commands of `sonic-ms`: lint, audit-fp16, predict-speed, build-om, build-lite."""

import argparse
import sys
from dataclasses import asdict

PRECISIONS = "fp16, mixed, fp32, bf16 or origin"  # the keys of atc.PRECISIONS, which cost an import of NumPy


def lint_arguments(parser):
    add = parser.add_argument
    add("bundle", help="folder that sonic-ms export wrote")
    add("--soc", action="append", help="chip, such as Ascend310P3; repeatable (default: one of each family)")
    add("--precision", help=f"as for build-om: {PRECISIONS} (default: that of build-om)")
    _add_pairs(parser, "--atc-flag", "flag that ATC would get as well")
    add("--cann", help="version of CANN, such as 8.2; refuses chips it does not have")
    add("--memory-gb", type=float, help="memory of the board (default: the usual board of the chip)")
    add("--markdown", action="store_true", help="print a table of units and chips")


def audit_fp16_arguments(parser):
    parser.add_argument("bundle", help="folder with float32 ONNX graphs")
    parser.add_argument("--units", type=_names, metavar="A,B", help="only these (default: all)")


def predict_speed_arguments(parser):
    parser.add_argument("bundle", help="folder with ONNX graphs")
    parser.add_argument("--soc", action="append", help="chip; repeatable (default: one of each family)")


def build_om_arguments(parser):
    _add_build_options(parser)
    parser.add_argument("--precision", help=f"{PRECISIONS} (default: fp16, origin for an fp16 bundle)")
    _add_pairs(parser, "--atc-flag", "another flag for ATC, such as op_debug_level=1; repeatable")
    parser.add_argument("--host-cpu", help="aarch64 or x86_64, when the box's CPU is another than this one's")


def build_lite_arguments(parser):
    _add_build_options(parser)
    parser.add_argument("--precision", help="fp16, fp32 or origin (default: what the audit allows)")
    _add_pairs(parser, "--ascend-context", "key of the converter's [ascend_context], such as plugin_custom_ops=All")


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


def lint(args):
    from sonic_ms.ascend.lint import FITS, format_markdown, format_text, lint_bundle
    from sonic_ms.deploy.bundle import Bundle

    verdicts = lint_bundle(Bundle.load(args.bundle), args.soc, args.cann, args.memory_gb, args.precision, args.extra)
    print((format_markdown if args.markdown else format_text)(verdicts))
    bad = sum(one.verdict != FITS for one in verdicts)
    print(f"{len(verdicts) - bad} of {len(verdicts)} fit, by the conditions known without CANN", file=sys.stderr)
    return [asdict(one) for one in verdicts]


def audit_fp16(args):
    from sonic_ms.ascend.audit import audit_bundle, format_audit
    from sonic_ms.deploy.bundle import Bundle

    audits = []
    for audit in audit_bundle(Bundle.load(args.bundle), args.units):
        audits.append(asdict(audit))
        print(format_audit(audit), flush=True)
    return audits


def predict_speed(args):
    from sonic_ms.ascend.roofline import bundle_costs, cheaper_costs, format_cheaper, format_prediction, predict
    from sonic_ms.deploy.bundle import Bundle

    bundle = Bundle.load(args.bundle)
    costs = bundle_costs(bundle)
    rows = predict(costs, args.soc)
    print(format_prediction(rows, costs) + format_cheaper(costs, cheaper_costs(bundle, costs), args.soc))
    return [{"soc": chip.soc, "seconds_at_best": best, "seconds_unfused": plain} for chip, best, plain in rows]


def build_om(args):
    from sonic_ms.ascend.atc import build_om

    common = (args.bundle, args.soc, args.units, args.precision)
    return {"compiled": build_om(*common, args.host_cpu, args.cann, args.extra, args.dry_run)}


def build_lite(args):
    from sonic_ms.ascend.lite import build_lite

    common = (args.bundle, args.soc, args.units, args.precision)
    return {"compiled": build_lite(*common, args.cann, args.extra, args.dry_run)}
