#!/usr/bin/env bash
# Atlas A2: 800T A2, 800I A2, 900 A2 PoD. Another chip of the family: SOC=Ascend910B4.
set -euo pipefail
exec "$(dirname "$0")/build_om.sh" --soc "${SOC:-Ascend910B3}" "$@"
