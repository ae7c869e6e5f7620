#!/usr/bin/env bash
# ONNX graphs of a bundle -> .om: scripts/atc/build_om.sh --bundle DIR --soc Ascend310P3 [--units A,B] [--dry-run]
# The command lines come from sonic_ms/ascend/atc.py; `--help` lists the options.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m sonic_ms build-om "$@"
