"""`sonic-ms label`, and the flags of who answers for a video."""

from sonic_ms.errors import UsageError, VideoError
from sonic_ms.labels.aigc import DEFAULT_PRODUCER


def operator_flags(parser):
    group = parser.add_argument_group("who answers for the video")
    group.add_argument(
        "--producer", metavar="NAME", default=DEFAULT_PRODUCER,
        help=f"name or code of the operator for the implicit label (default: {DEFAULT_PRODUCER})",
    )  # fmt: skip
    group.add_argument("--c2pa-cert", metavar="FILE", help="certificate chain (PEM) that signs a C2PA manifest")
    group.add_argument("--c2pa-key", metavar="FILE", help="its private key (PEM)")


def operator_of(args):
    """save.Operator of the flags. Raises UsageError, InputMissingError, EngineError."""
    from sonic_ms.labels.aigc import check_producer
    from sonic_ms.labels.manifest import load_signer
    from sonic_ms.labels.save import Operator

    check_producer(args.producer)
    if (args.c2pa_cert is None) != (args.c2pa_key is None):
        raise UsageError("--c2pa-cert and --c2pa-key belong together: give both")
    return Operator(args.producer, load_signer(args.c2pa_cert, args.c2pa_key) if args.c2pa_cert else None)


def label_arguments(parser):
    from sonic_ms.options import Options, choices

    fields = Options.model_fields
    parser.add_argument("video", help="the mp4")
    parser.add_argument("--detect", action="store_true", help="look for the watermark only, and print its number")
    parser.add_argument("--write", action="store_true", help="write labels into the file: the implicit one, and")
    parser.add_argument("--watermark", action="store_true", help="the watermark (encodes the pictures anew)")
    parser.add_argument("--visible-label", choices=choices(fields["visible_label"]),
                        help="the visible one in Chinese or English (encodes the pictures anew)")  # fmt: skip
    parser.add_argument("--label-corner", choices=choices(fields["label_corner"]), default="bottom-right",
                        help="where that goes, unless a face is there (default: bottom-right)")  # fmt: skip
    operator_flags(parser)


def label(args):
    from sonic_ms.labels import show, write

    if not args.write and (args.watermark or args.visible_label):
        raise UsageError("--watermark and --visible-label change the file: add --write")
    if args.detect and args.write:
        raise UsageError("--detect only looks: leave out --write")
    if args.detect:
        line = show.watermark_line(args.video)
        print(line)
        return {"watermark": line}
    if args.write:
        wanted = write.Wanted(args.watermark, args.visible_label, args.label_corner, _faces)
        for note in write.write_labels(args.video, operator_of(args), wanted):
            print(f"note: {note}")
    report = show.look(args.video)
    for name, text in report.items():
        print(f"{name}: {text}")
    if bad := show.broken(report):
        error = VideoError(
            f"video {args.video}: {' and '.join(bad)} not valid, as the lines above say; the file was "
            "changed, or written wrong"
        )
        error.report = report
        raise error
    return report


def _faces(frame):
    """Boxes of the faces in a frame."""
    from sonic_ms.face.detect import FaceAnalyzer

    return [face.box for face in FaceAnalyzer().detect(frame)]
