#!/usr/bin/env python
"""Write a tiny checkpoint tree in the published layout, with random weights, for trying the converter.

    python -m bench.make_tiny_checkpoint DIR [--seed 0]

What is in it: tests/support/tiny_checkpoint.py. Needs torch, which writes the .pth files.
"""

import sys

if __name__ == "__main__":
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("bench.make_tiny_checkpoint needs torch, which writes the .pth files: pip install '.[test]'")
    from tests.support.tiny_checkpoint import main

    sys.exit(main())
