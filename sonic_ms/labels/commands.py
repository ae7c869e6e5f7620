"""`sonic-ms label`, and the flags of who answers for a video."""

from sonic_ms.errors import UsageError
from sonic_ms.labels.aigc import DEFAULT_PRODUCER


def operator_flags(parser):
    group = parser.add_argument_group("who answers for the video")
    group.add_argument(
        "--producer", metavar="NAME", default=DEFAULT_PRODUCER,
        help=f"name or code of the operator for the implicit label (default: {DEFAULT_PRODUCER})",
    )  # fmt: skip


def label_arguments(parser):
    parser.add_argument("video", help="the mp4")
    parser.add_argument("--detect", action="store_true", help="look for the watermark only, and print its number")
    parser.add_argument("--write", action="store_true", help="write the labels into the file")
    operator_flags(parser)


def label(args):
    from sonic_ms.labels import show, write
    from sonic_ms.labels.save import Operator

    if args.detect and args.write:
        raise UsageError("--detect only looks: leave out --write")
    if args.detect:
        line = show.watermark_line(args.video)
        print(line)
        return {"watermark": line}
    if args.write:
        for note in write.write_labels(args.video, Operator(args.producer)):
            print(f"note: {note}")
    report = show.look(args.video)
    for name, text in report.items():
        print(f"{name}: {text}")
    return report
