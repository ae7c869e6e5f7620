"""`sonic-ms data`: training data from videos."""

import sys


def data_arguments(parser):
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    build = tasks.add_parser("build", help="cut checked clips out of talking-head videos, as MindRecord shards")
    build.add_argument("videos", nargs="+", help="folders, video files, or lists of them (.txt)")
    build.add_argument("--out", required=True, help="folder of the shards; one that is there is continued")
    build.add_argument("--model", help="folder of a converted sonic-base: store latents, embeddings, audio states too")
    build.add_argument("--config", metavar="FILE", help="YAML file with other limits, see configs/data.yaml")
    lips = tasks.add_parser("lips", help="measure the mouths of talking videos beside their sound, a file a clip")
    lips.add_argument("videos", nargs="+", help="folders, video files, or lists of them (.txt)")
    lips.add_argument("--out", required=True, help="folder of the clips; those of the same names are replaced")
    lips.add_argument("--lang", default="", help="language that is spoken, written into the clips: en, fr, ...")


def data(args):
    if args.task == "lips":
        return _lips(args)
    from sonic_ms.data.build import build, summary
    from sonic_ms.data.config import DataConfig
    from sonic_ms.files.config import from_dict, read_yaml

    values = read_yaml(args.config) if args.config else {}
    config = from_dict(DataConfig, values, args.config or "options")
    index = build(args.videos, args.out, config, args.model, note=lambda line: print(f"note: {line}", file=sys.stderr))
    print(summary(index))
    print(index.path)
    return {"index": str(index.path)}


def _lips(args):
    from sonic_ms.data.lips import build

    found = build(args.videos, args.out, args.lang, note=lambda line: print(line, file=sys.stderr))
    good = [one for one in found if not one.reason]
    print(f"{len(good)} clips, {sum(one.seconds for one in good):.0f} s; {len(found) - len(good)} pieces left out")
    print(args.out)
    return {"clips": [vars(one) for one in found]}
