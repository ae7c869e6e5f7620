"""Start-up of several devices: scripts/train/, and the rank tables of the older way. Nothing is launched here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sonic_ms.errors import UsageError
from sonic_ms.train.loop.rank_table import devices_of, read_rank_table
from sonic_ms.train.run import train

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "scripts" / "train"
CONFIG = ROOT / "configs" / "base_finetune.yaml"


def run(script, *arguments):
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_eight_devices_of_one_machine():
    (line,) = run("train_8p.sh", CONFIG, "--out", "my run", "--resume", "--dry-run").stdout.splitlines()
    assert "--worker_num=8 --local_worker_num=8 --node_rank=0" in line
    assert line.endswith(f"python -m sonic_ms train {CONFIG} --out my\\ run --resume ")


def test_several_machines():
    shared = (CONFIG, "--nodes", 4, "--master", "10.0.0.1", "--dry-run")
    (line,) = run("train_nodes.sh", *shared, "--node-rank", 3, "--port", 9000).stdout.splitlines()
    assert "--worker_num=32 --local_worker_num=8 --node_rank=3 --master_addr=10.0.0.1 --master_port=9000" in line
    assert "logs/node3" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no CONFIG"),
        (("missing.yaml",), "no such file"),
        ((CONFIG, "--nodes", "2", "--node-rank", "0"), "need --master"),
        ((CONFIG, "--nodes", "2", "--master", "10.0.0.1"), "need --node-rank"),
        ((CONFIG, "--nodes", "2", "--master", "10.0.0.1", "--node-rank", "2"), "expected 0 to 1"),
        ((CONFIG, "--devices", "many"), "--devices is 'many'"),
        ((CONFIG, "--port"), "--port needs a value"),
        ((CONFIG, "--speed", "9"), "unknown option --speed"),
        ((CONFIG, CONFIG), "two configs"),
    ],
)
def test_bad_arguments(arguments, message):
    result = run("train_nodes.sh", *arguments, "--dry-run")
    assert result.returncode == 2 and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not result.stdout


def test_a_rank_table_starts_the_devices_of_its_machine():
    table = SCRIPTS / "rank_table_2x8p.json"
    arguments = ("--table", table, "--server", "10.0.0.2", "--dry-run")
    lines = run("train_rank_table.sh", CONFIG, *arguments).stdout.splitlines()
    assert len(lines) == 8
    for number, line in enumerate(lines):
        assert f"RANK_SIZE=16 RANK_ID={8 + number} DEVICE_ID={number} " in line
    assert len(read_rank_table(SCRIPTS / "rank_table_8p.json")) == 8
    result = run("train_rank_table.sh", CONFIG, "--table", table, "--dry-run")
    assert result.returncode == 2 and "say which one" in result.stderr


def test_a_process_of_a_rank_table_that_fails_ends_the_job(tmp_path):
    (tmp_path / "bad.yaml").write_text("recipe: nothing\n")
    result = run("train_rank_table.sh", tmp_path / "bad.yaml", "--table", SCRIPTS / "rank_table_8p.json", "--out",
                 tmp_path / "out")  # fmt: skip
    assert result.returncode == 1 and "a process failed" in result.stderr
    logs = [path.read_text() for path in (tmp_path / "out" / "logs").glob("rank*.log")]
    assert len(logs) == 8 and any("recipe is 'nothing'" in log for log in logs)  # the first to fail may be any of them


def test_bad_rank_tables(tmp_path):
    def table(*devices):
        entries = [{"rank_id": str(rank), "device_id": str(device)} for rank, device in devices]
        path = tmp_path / "table.json"
        path.write_text(json.dumps({"server_list": [{"server_id": "a", "device": entries}]}))
        return path

    assert devices_of(read_rank_table(table((1, 5), (0, 4)))) == [(0, 4), (1, 5)]
    for devices, message in ((((0, 0), (2, 1)), "rank_id is"), (((0, 0), (1, 0)), "device_id twice"), ((), "rank_id")):
        with pytest.raises(UsageError, match=message):
            read_rank_table(table(*devices))
    with pytest.raises(UsageError, match="server 'b' is not in"):
        devices_of(read_rank_table(table((0, 0))), "b")
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(UsageError, match="not a rank table"):
        read_rank_table(tmp_path / "table.json")


def test_a_recipe_for_one_process_refuses_several(tmp_path, monkeypatch):
    monkeypatch.setenv("MS_WORKER_NUM", "2")
    with pytest.raises(UsageError, match="trains in one process"):
        train(ROOT / "configs" / "edge_audio.yaml", tmp_path)
