#!/usr/bin/env python
"""Convert the published Sonic checkpoints to MindSpore, without torch: the same as `sonic-ms convert`.

python tools/pt2ms_weights.py --src CHECKPOINTS --dst DIR [--only unet,vae] [--dtype fp16] [--dry-run] [--json FILE]
"""

import sys

from sonic_ms import cli


def main(arguments=None):
    """Exit code of the conversion."""
    return cli.main(["convert", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
