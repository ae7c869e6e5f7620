"""`sonic-ms convert`, which is tools/pt2ms_weights.py too: the published Sonic checkpoints to MindSpore, without torch.

The source is the folder tree as published (see docs/base.md), or a single file. Every tensor is accounted for: mapped,
or dropped for a stated reason; anything unknown, missing or of a wrong shape stops the run, and nothing is written. So
does a file that cannot be read, if it may be a network that no other file supplies. The last line says which of the
networks are there; a folder without some of them is no problem in itself, they may be converted one after another.
"""

import sys


def convert_arguments(parser):
    add = parser.add_argument
    add("--src", required=True, help="folder of checkpoints, or one file")
    add("--dst", required=True, help="folder to write <network>/model.safetensors and config.json in")
    add("--only", help="comma-separated networks, e.g. unet,vae (default: all that are found)")
    add("--dtype", choices=("fp32", "fp16", "bf16"), default="fp32", help="width of the written floats (default: fp32)")
    add("--dry-run", action="store_true", help="check names and shapes, write nothing")
    add("--allow-zeros", action="store_true", help="take tensors that are zeros in whole or in part")


def convert(args):
    from sonic_ms.convert import checkpoints  # here: it imports MindSpore

    from sonic_ms.base.units import NAME
    from sonic_ms.files.model import write_model_file

    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    only = [name.strip() for name in args.only.split(",")] if args.only else None
    jobs, notes = checkpoints.plan(args.src, only)
    for note in notes:
        print(note)
    if args.dry_run:
        if not args.allow_zeros:
            checkpoints.check_written(jobs)
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

        reports = checkpoints.convert(jobs, args.dst, args.dtype, progress, args.allow_zeros)
        write_model_file(args.dst, NAME)
    there = {*checkpoints.present(args.dst), *(job.family.name for job in jobs)}
    missing = [name for name in checkpoints.NETWORKS if name not in there]
    print(inventory(args.dst, [name for name in checkpoints.NETWORKS if name in there], missing, args.dry_run))
    return {"networks": reports, "notes": notes, "missing": missing}


def inventory(dst, there, missing, dry_run):
    """The last line: which networks a folder holds, which are missing, and what that means."""
    verb = "would hold" if dry_run else "holds"
    if not missing:
        return f"{dst} {verb} all {len(there)} networks of sonic-base"
    return (
        f"{dst} {verb} {len(there)} of {len(there) + len(missing)} networks: {', '.join(there)}. Missing: "
        f"{', '.join(missing)}; sonic-base does not run without them, so convert them into the same folder"
    )
