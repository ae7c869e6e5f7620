#!/usr/bin/env bash
# sonic-base on the eight 910s of one machine: scripts/train/train_8p.sh CONFIG [--out DIR] [--resume] [--dry-run]
# Never run on hardware yet. Other options: see train_nodes.sh --help.
set -euo pipefail
exec "$(dirname "$0")/train_nodes.sh" --devices 8 "$@"
