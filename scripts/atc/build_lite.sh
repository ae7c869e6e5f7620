#!/usr/bin/env bash
# MINDIR graphs of a bundle -> MINDIR for MindSpore Lite on Ascend: scripts/atc/build_lite.sh --bundle DIR --soc Ascend310P3
# The configuration and command lines come from sonic_ms/ascend/lite.py; `--help` lists the options.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m sonic_ms build-lite "$@"
