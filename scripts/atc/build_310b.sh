#!/usr/bin/env bash
# Atlas 200I DK A2, 200I A2, 500 A2. Another chip of the family: SOC=Ascend310B1.
set -euo pipefail
exec "$(dirname "$0")/build_om.sh" --soc "${SOC:-Ascend310B4}" "$@"
