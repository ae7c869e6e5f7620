"""`sonic-ms convert`, which is tools/pt2ms_weights.py too: the published Sonic checkpoints to MindSpore, without torch.

The source is the folder tree as published (see docs/base.md), or a single file. Every tensor is accounted for: mapped,
or dropped for a stated reason; anything unknown, missing or of a wrong shape stops the run, and nothing is written.
"""


def convert_arguments(parser):
    add = parser.add_argument
    add("--src", required=True, help="folder of checkpoints, or one file")
    add("--dst", required=True, help="folder to write <network>/model.safetensors and config.json in")
    add("--only", help="comma-separated networks, e.g. unet,vae (default: all that are found)")
    add("--dtype", choices=("fp32", "fp16", "bf16"), default="fp32", help="width of the written floats (default: fp32)")
    add("--dry-run", action="store_true", help="check names and shapes, write nothing")


def convert(args):
    from sonic_ms.convert import checkpoints  # here: it imports MindSpore

    from sonic_ms.base.units import NAME
    from sonic_ms.files.model import write_model_file

    only = [name.strip() for name in args.only.split(",")] if args.only else None
    jobs, notes = checkpoints.plan(args.src, only)
    for note in notes:
        print(note)
    if args.dry_run:
        reports = [
            {
                "network": job.family.name,
                "source": str(job.path),
                "parameters": len(job.targets),
                "dropped": list(job.dropped),
            }
            for job in jobs
        ]
        for report in reports:
            print(f"{report['network']}: {report['parameters']} mapped, {len(report['dropped'])} dropped, not written")
    else:

        def progress(report):
            print(
                f"{report['network']}: {report['parameters']} mapped, {len(report['dropped'])} dropped, "
                f"{report['bytes'] / 1e6:.1f} MB {report['dtype']} in {report['seconds']:.1f} s"
            )

        reports = checkpoints.convert(jobs, args.dst, args.dtype, progress)
        write_model_file(args.dst, NAME)
    return {"networks": reports, "notes": notes}
