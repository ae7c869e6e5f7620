#!/usr/bin/env bash
# Atlas 200 DK, 300I 3000/3010, 500 (CANN 8.2 or older). Another chip of the family: SOC=Ascend310.
set -euo pipefail
exec "$(dirname "$0")/build_om.sh" --soc "${SOC:-Ascend310}" "$@"
