"""`sonic-ms train` and `sonic-ms personalize`."""

from pathlib import Path

from sonic_ms.errors import InputMissingError


def train_arguments(parser):
    parser.add_argument("config", help="YAML file, or the name of a recipe that comes with the package, see configs/")
    parser.add_argument("--out", help="folder for data, checkpoints, logs and weights (default: runs/RECIPE)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--plan", action="store_true", help="only predict the memory of a device (base_finetune)")


def train(args):
    from sonic_ms.train.run import memory_table, train

    result = memory_table(args.config) if args.plan else train(args.config, args.out, args.resume)
    print(result)
    return result


def personalize_arguments(parser):
    parser.add_argument("--video", required=True, help="clip of one person who speaks, facing the camera")
    parser.add_argument("--image", help="photo of that person to start from (default: the clip's best frame)")
    parser.add_argument("--out", required=True, help="folder of the new model, must not exist")
    parser.add_argument("--sparse", action="store_true",
        help="change a tenth of the weights, and write them as delta.safetensors for generate --delta")  # fmt: skip


def personalize(args):
    if not Path(args.video).is_file():
        raise InputMissingError(f"file {args.video}: no such file; check the path")
    from sonic_ms.train.edge.personalize import format_report, personalize

    pruner = None
    if args.sparse:
        from sonic_ms.small.personal import Chosen

        pruner = Chosen()
    report = personalize(args.video, args.out, args.image, pruner=pruner)
    print(format_report(report))
    print(args.out)
    return report
