"""`sonic-ms export` and `sonic-ms verify`."""

import sys

from sonic_ms.errors import EngineError, UsageError


def export_arguments(parser):
    add = parser.add_argument
    add("--model", default="sonic-edge", help="sonic-edge, or the folder of a model (default: sonic-edge)")
    add("--format", help="mindir, onnx or both, as mindir,onnx (default: both; int8: onnx)")
    add("--dtype", choices=("fp32", "fp16", "int8"), default="fp32",
        help="of weights and activations; int8 for ONNX, and of sonic-edge alone (default: fp32)")  # fmt: skip
    add("--gear", action="append", default=[],
        help="sonic-edge: side of the moving square, repeatable (default: all); sonic-base: WIDTHxHEIGHT")  # fmt: skip
    add("--decode-chunk-size", type=int, metavar="N",
        help="sonic-base: frames the decoder's graph takes at once; fewer need less memory (default: 8)")  # fmt: skip
    add("--for-cpu", action="store_true",
        help="sonic-base: a UNet that MindSpore runs faster on a CPU, in more memory; for nothing else")  # fmt: skip
    add("--feature-cache-branch", type=int, choices=(0, 1), action="append", metavar="0|1",
        help="sonic-base: graphs for --feature-cache, repeatable; each adds the size of the UNet")  # fmt: skip
    add("--out", required=True, help="folder of the bundle, must not exist")


def export(args):
    from sonic_ms.deploy.export import FORMATS, export
    from sonic_ms.pipeline import model_of, unit_table

    only = ("mindir",) if args.for_cpu else ("onnx",) if args.dtype == "int8" else FORMATS
    formats = tuple(args.format.split(",")) if args.format else only
    if not set(formats) <= set(FORMATS):
        raise UsageError(f"format {args.format!r}; expected {', '.join(FORMATS)} or both")
    if args.for_cpu and "onnx" in formats:
        raise UsageError("--for-cpu is for MINDIR; leave it out, or --format onnx")
    if args.dtype == "int8" and formats != ("onnx",):
        raise UsageError("--dtype int8 is for ONNX: MindSpore has no such graphs; leave it out, or --format onnx")
    sizes = {"gears": args.gear, "chunk": args.decode_chunk_size, "for_cpu": args.for_cpu}
    if args.feature_cache_branch:
        if model_of(args.model) != "sonic-base":
            raise UsageError(
                f"--feature-cache-branch is for sonic-base, and {args.model} is another model; leave it out"
            )
        sizes["cache_branches"] = args.feature_cache_branch
    table = unit_table(args.model, precision="fp32" if args.dtype == "int8" else args.dtype, **sizes)
    bundle = export(table, args.out, formats, args.dtype, lambda line: print(line, file=sys.stderr, flush=True))
    print(args.out)
    return bundle.manifest


def verify_arguments(parser):
    parser.add_argument("bundle", help="folder that `sonic-ms export` wrote")
    parser.add_argument("--engines", default="mindspore,onnxruntime", help="default: mindspore,onnxruntime")
    parser.add_argument("--units", help="only these, separated by commas")


def verify(args):
    from sonic_ms.deploy.bundle import Bundle
    from sonic_ms.deploy.verify import format_rows, verify
    from sonic_ms.pipeline import sample_inputs

    bundle = Bundle.load(args.bundle)
    units = args.units.split(",") if args.units else None
    if units and not set(units) <= set(bundle.units):
        raise UsageError(f"units {args.units!r}; the bundle has {', '.join(bundle.units)}")
    rows = verify(bundle, args.engines.split(","), sample_inputs(bundle.model), units)
    print(format_rows(rows))
    failed = sum(not row["passed"] for row in rows)
    if failed:
        error = EngineError(f"{failed} of {len(rows)} outputs differ by more than their bar")
        error.report = rows
        raise error
    return rows
