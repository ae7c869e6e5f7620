#!/usr/bin/env bash
# sonic-base by the older start-up of Ascend: a rank table and one process a device. Never run on hardware yet.
set -euo pipefail

usage="train_rank_table.sh CONFIG --table FILE [--server ADDRESS] [--out DIR] [--resume] [--dry-run]
Starts one process for every device that the rank table has for this machine; run it on every machine of the table.
--server: server_id of this machine, needed when the table has several. Examples of tables: rank_table_8p.json,
rank_table_2x8p.json; device_ip comes from /etc/hccn.conf. --dry-run prints the commands."

fail() { echo "train_rank_table.sh: $1; see --help" >&2; exit 2; }

table="" server="" out=runs/base_finetune config="" resume=() dry_run=""
while (($#)); do
    case $1 in
        --help | -h) echo "$usage"; exit 0 ;;
        --resume) resume=(--resume); shift ;;
        --dry-run) dry_run=yes; shift ;;
        --table | --server | --out)
            (($# > 1)) && [[ -n $2 && $2 != --* ]] || fail "$1 needs a value"
            printf -v "${1#--}" %s "$2" && shift 2 ;;
        -*) fail "unknown option $1" ;;
        *) [[ -z $config ]] || fail "two configs: $config and $1"; config=$1; shift ;;
    esac
done
[[ -n $config ]] || fail "no CONFIG given"
[[ -f $config ]] || fail "config $config: no such file"
[[ -n $table ]] || fail "no --table given"
[[ -f $table ]] || fail "table $table: no such file"

root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
# one line with the number of all devices, then "rank device" of every device of this machine
listing=$("$python" -m sonic_ms.train.loop.rank_table "$table" ${server:+"$server"}) || exit 2
mapfile -t lines <<<"$listing"
command=("$python" -m sonic_ms train "$config" --out "$out" "${resume[@]}")
export RANK_TABLE_FILE RANK_SIZE=${lines[0]}
RANK_TABLE_FILE=$(realpath "$table")
[[ -n $dry_run ]] || mkdir -p "$out/logs"
for line in "${lines[@]:1}"; do
    read -r rank device <<<"$line"
    if [[ -n $dry_run ]]; then
        printf '%q ' "RANK_TABLE_FILE=$RANK_TABLE_FILE" "RANK_SIZE=$RANK_SIZE" "RANK_ID=$rank" "DEVICE_ID=$device" "${command[@]}"
        echo
    else
        RANK_ID=$rank DEVICE_ID=$device "${command[@]}" >"$out/logs/rank$rank.log" 2>&1 &
    fi
done
# One process that fails would leave the others waiting for it: end them all.
while [[ -n $(jobs -rp) ]]; do
    if ! wait -n; then
        echo "train_rank_table.sh: a process failed; see $out/logs" >&2
        kill $(jobs -rp) 2>/dev/null || true
        wait
        exit 1
    fi
done
