#!/usr/bin/env bash
# sonic-base on the devices of one machine or of several, by msrun. Never run on hardware yet.
set -euo pipefail

usage="train_nodes.sh CONFIG [--nodes N --node-rank K --master ADDRESS] [--devices 8] [--port 8118]
                [--out DIR] [--resume] [--dry-run]
Run it on every machine with its own --node-rank, 0 on the one whose address is --master. All machines need the same
checkout, the same CONFIG, and --out on a file system that they share. --dry-run prints the command."

fail() { echo "train_nodes.sh: $1; see --help" >&2; exit 2; }
number() { [[ $2 =~ ^[0-9]+$ ]] && (($2 >= $3 && $2 <= $4)) || fail "$1 is '$2', expected $3 to $4"; }

nodes=1 node_rank="" master=127.0.0.1 devices=8 port=8118 out=runs/base_finetune config="" resume=() dry_run=""
while (($#)); do
    case $1 in
        --help | -h) echo "$usage"; exit 0 ;;
        --resume) resume=(--resume); shift ;;
        --dry-run) dry_run=yes; shift ;;
        --nodes | --node-rank | --master | --devices | --port | --out)
            (($# > 1)) && [[ -n $2 && $2 != --* ]] || fail "$1 needs a value"
            name=${1#--} && printf -v "${name//-/_}" %s "$2" && shift 2 ;;
        -*) fail "unknown option $1" ;;
        *) [[ -z $config ]] || fail "two configs: $config and $1"; config=$1; shift ;;
    esac
done
[[ -n $config ]] || fail "no CONFIG given"
[[ -f $config ]] || fail "config $config: no such file"
number --nodes "$nodes" 1 1024
number --devices "$devices" 1 16
number --port "$port" 1024 65535
if ((nodes > 1)); then
    [[ $master != 127.0.0.1 ]] || fail "several nodes need --master ADDRESS of node 0"
    [[ -n $node_rank ]] || fail "several nodes need --node-rank"
fi
number --node-rank "${node_rank:=0}" 0 $((nodes - 1))

root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
command=(msrun "--worker_num=$((nodes * devices))" "--local_worker_num=$devices" "--node_rank=$node_rank"
    "--master_addr=$master" "--master_port=$port" "--log_dir=$out/logs/node$node_rank" --join=True
    python -m sonic_ms train "$config" --out "$out" "${resume[@]}")
if [[ -n $dry_run ]]; then
    printf '%q ' "${command[@]}"
    echo
    exit 0
fi
mkdir -p "$out/logs"
exec "${command[@]}"
