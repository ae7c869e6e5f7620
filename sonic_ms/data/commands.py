"""`sonic-ms data`: training data from videos."""

import sys


def data_arguments(parser):
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    build = tasks.add_parser("build", help="cut checked clips out of talking-head videos, as MindRecord shards")
    build.add_argument("videos", nargs="+", help="folders, video files, or lists of them (.txt)")
    build.add_argument("--out", required=True, help="folder of the shards; one that is there is continued")
    build.add_argument("--model", help="folder of a converted sonic-base: store latents, embeddings, audio states too")
    build.add_argument("--config", metavar="FILE", help="YAML file with other limits, see configs/data.yaml")


def data(args):
    from sonic_ms.data.build import build, summary
    from sonic_ms.data.config import DataConfig
    from sonic_ms.files.config import from_dict, read_yaml

    values = read_yaml(args.config) if args.config else {}
    config = from_dict(DataConfig, values, args.config or "options")
    index = build(args.videos, args.out, config, args.model, note=lambda line: print(f"note: {line}", file=sys.stderr))
    print(summary(index))
    print(index.path)
    return {"index": str(index.path)}
