#!/usr/bin/env bash
# Atlas 300I Pro, 300V Pro, 300I Duo, 200I SoC A1. Another chip of the family: SOC=Ascend310P1.
set -euo pipefail
exec "$(dirname "$0")/build_om.sh" --soc "${SOC:-Ascend310P3}" "$@"
