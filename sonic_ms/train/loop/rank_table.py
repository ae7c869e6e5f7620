"""Rank tables, Huawei's older way to say which process has which device: read one, list the devices of a machine.

python -m sonic_ms.train.loop.rank_table TABLE [SERVER]     is what scripts/train/train_rank_table.sh asks
"""

import sys

from sonic_ms.errors import SonicError, UsageError, printable
from sonic_ms.files.reading import read_json


def read_rank_table(path):
    """[(server_id, rank, device)] of all devices, by rank. UsageError unless the ranks are 0, 1, ... and each device
    of a server occurs once."""
    table = read_json(path, "a rank table", error=UsageError)
    try:
        entries = sorted(
            (
                (server["server_id"], int(device["rank_id"]), int(device["device_id"]))
                for server in table["server_list"]
                for device in server["device"]
            ),
            key=lambda entry: entry[1],
        )
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UsageError(f"{path} is not a rank table ({printable(repr(error))})") from error
    if [rank for _, rank, _ in entries] != list(range(len(entries))) or not entries:
        raise UsageError(f"{path}: rank_id is {[rank for _, rank, _ in entries]}; expected 0, 1, ... once each")
    if len({(server, device) for server, _, device in entries}) < len(entries):
        raise UsageError(f"{path}: a server has the same device_id twice")
    return entries


def devices_of(entries, server=None):
    """[(rank, device)] of one server; it may be left out where there is only one."""
    servers = sorted({entry[0] for entry in entries})
    if server is None and len(servers) > 1:
        raise UsageError(f"the rank table has servers {', '.join(servers)}; say which one this machine is")
    server = servers[0] if server is None else server
    if server not in servers:
        raise UsageError(f"server {server!r} is not in the rank table; it has {', '.join(servers)}")
    return [(rank, device) for name, rank, device in entries if name == server]


def main(arguments):
    try:
        entries = read_rank_table(arguments[0])
        own = devices_of(entries, *arguments[1:2])
    except SonicError as error:
        print(f"sonic-ms: {error}", file=sys.stderr)
        return 2
    print(len(entries))
    for rank, device in own:
        print(rank, device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
