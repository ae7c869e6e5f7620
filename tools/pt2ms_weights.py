#!/usr/bin/env python
"""Convert the published Sonic checkpoints to MindSpore, without torch.

    python tools/pt2ms_weights.py --src CHECKPOINTS --dst DIR [--only unet,vae] [--dtype fp16] [--dry-run] [--json FILE]

CHECKPOINTS is the folder tree as published (see docs/base.md), or a single file. Every tensor is accounted for:
mapped, or dropped for a stated reason; anything unknown, missing or of a wrong shape stops the run, and nothing is
written. So does a file that cannot be read, if it may be a network that no other file supplies. The last line says
which of the eight networks are there. Exit code 0 on success, 1 on any problem; a folder without some networks is no
problem in itself, since they may be converted one after another.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout without installing

from sonic_ms.errors import OutputError, SonicError


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--src", required=True, help="folder of checkpoints, or one file")
    parser.add_argument("--dst", required=True, help="folder to write <network>/model.safetensors and config.json in")
    parser.add_argument("--only", help="comma-separated networks, e.g. unet,vae (default: all that are found)")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), default="fp32", help="width of the written floats")
    parser.add_argument("--dry-run", action="store_true", help="check names and shapes, write nothing")
    parser.add_argument("--json", metavar="FILE", help="write a report, one entry a network")
    parser.add_argument("--allow-zeros", action="store_true", help="take tensors that are zeros in whole or in part")
    return parser.parse_args(arguments)


def run(options):
    from convert import checkpoints  # after argparse: it imports MindSpore

    if options.json and not Path(options.json).parent.is_dir():  # now, and not after the work
        raise OutputError(f"cannot write {options.json}: the folder {Path(options.json).parent} does not exist")
    only = [name.strip() for name in options.only.split(",")] if options.only else None
    jobs, notes = checkpoints.plan(options.src, only)
    for note in notes:
        print(note)
    if options.dry_run:
        if not options.allow_zeros:
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

        reports = checkpoints.convert(jobs, options.dst, options.dtype, progress, options.allow_zeros)
    there = {*checkpoints.present(options.dst), *(job.family.name for job in jobs)}
    missing = [name for name in checkpoints.NETWORKS if name not in there]
    print(inventory(options.dst, [name for name in checkpoints.NETWORKS if name in there], missing, options.dry_run))
    if options.json:
        report = {"networks": reports, "notes": notes, "missing": missing}
        try:
            Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {options.json}: {error.strerror}") from error


def inventory(dst, there, missing, dry_run):
    """The last line: which networks a folder holds, which are missing, and what that means."""
    verb = "would hold" if dry_run else "holds"
    if not missing:
        return f"{dst} {verb} all {len(there)} networks of sonic-base"
    return (
        f"{dst} {verb} {len(there)} of {len(there) + len(missing)} networks: {', '.join(there)}. Missing: "
        f"{', '.join(missing)}; sonic-base does not run without them, so convert them into the same folder"
    )


def main(arguments=None):
    options = parse(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        stream.reconfigure(errors="backslashreplace")
    try:
        run(options)
    except SonicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
