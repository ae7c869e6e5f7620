#!/usr/bin/env python
"""Convert the published Sonic checkpoints to MindSpore, without torch.

    python tools/pt2ms_weights.py --src CHECKPOINTS --dst DIR [--only unet,vae] [--dtype fp16] [--dry-run] [--json FILE]

CHECKPOINTS is the folder tree as published (see docs/base.md), or a single file. Every tensor is accounted for:
mapped, or dropped for a stated reason; anything unknown, missing or of a wrong shape stops the run, and nothing is
written. Exit code 0 on success, 1 on any problem.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run from a checkout without installing

from sonic_ms.errors import SonicError


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--src", required=True, help="folder of checkpoints, or one file")
    parser.add_argument("--dst", required=True, help="folder to write <network>/model.safetensors and config.json in")
    parser.add_argument("--only", help="comma-separated networks, e.g. unet,vae (default: all that are found)")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), default="fp32", help="width of the written floats")
    parser.add_argument("--dry-run", action="store_true", help="check names and shapes, write nothing")
    parser.add_argument("--json", metavar="FILE", help="write a report, one entry a network")
    return parser.parse_args(arguments)


def run(options):
    from sonic_ms.convert import checkpoints  # after argparse: it imports MindSpore

    only = [name.strip() for name in options.only.split(",")] if options.only else None
    jobs, notes = checkpoints.plan(options.src, only)
    for note in notes:
        print(note)
    if options.dry_run:
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

        reports = checkpoints.convert(jobs, options.dst, options.dtype, progress)
    if options.json:
        Path(options.json).write_text(json.dumps({"networks": reports, "notes": notes}, indent=1) + "\n")


def main(arguments=None):
    options = parse(arguments)
    try:
        run(options)
    except SonicError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
