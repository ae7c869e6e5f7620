#!/usr/bin/env bash
# First-generation Ascend 910: Atlas 800-9000, 300T. Another chip of the family: SOC=Ascend910ProA.
set -euo pipefail
exec "$(dirname "$0")/build_om.sh" --soc "${SOC:-Ascend910A}" "$@"
