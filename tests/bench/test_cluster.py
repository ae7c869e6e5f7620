"""The benches of many servers, at tiny size."""

import json
import subprocess
import sys

import pytest

from bench.cluster_simulation import Costs, full_at, simulate


def run(*arguments):
    """Lines of JSON that a bench prints."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_simulated_day_adds_up():
    few, many = (simulate(boxes, 8000, Costs(), 0.0003, 0.002) for boxes in (1, 100))
    assert few["jobs"] == many["jobs"] and 7600 < many["jobs"] < 8400
    assert many["wait_s"]["longest"] < 1 and many["deepest queue"] == 0
    assert few["wait_s"]["95 %"] > 600 and few["deepest queue"] > 50  # by day more comes than one box makes
    work = many["boxes used"] * 100 * 86400 / many["jobs"]
    assert work == pytest.approx(1.5 + 0.32 * 20, rel=0.1)  # seconds a job, on average
    assert many["writes_a_second"]["alone"] == pytest.approx(6 * many["jobs"] / 86400, abs=0.06)


def test_the_first_that_is_full_is_named_first():
    assert next(iter(full_at(10, Costs(), 0.0003, 0.002, 0.015))) == "boxes"
    assert next(iter(full_at(1000, Costs(), 0.0003, 0.002, 0.015))) == "the one janitor"
    assert next(iter(full_at(1000, Costs(), 0.001, 0.01, 0.0))) == "the database's one writer"
    slow = simulate(1000, 20_000, Costs(), 0.0, 2.0)  # a writer that is not quick enough
    assert slow["lock used"] > 0.9 and slow["wait_s"]["half"] > 60


def test_the_simulation_runs_as_the_page_says():
    lines = run("bench.cluster_simulation", "--boxes", "40", "--jobs", "3000")
    assert lines[0]["boxes"] == 40 and "wait_s" in lines[1]


@pytest.mark.slow
@pytest.mark.needs("postgresql")
def test_the_cost_of_a_job_is_counted():
    (found,) = run("bench.cluster_cost", "--jobs", "3")
    alone = found["to its end"]["alone"]
    assert alone["transactions"] >= 3  # written, claimed, ended
    assert 6 <= alone["statements"] / alone["transactions"] <= 12
    assert found["until forgotten"]["alone"]["transactions"] >= 3  # two inputs and the video
    assert found["progress"]["log_bytes"] > found["renewal"]["log_bytes"] > 0


@pytest.mark.slow
@pytest.mark.needs("postgresql")
def test_two_servers_survive_faults():
    two, faults = run("bench.cluster_faults", "--jobs", "8", "--database", "3", "--files", "4")
    assert two["jobs"] == two["claims"] == 8 and two["wrong"] == faults["wrong"] == []
    assert set(faults["readyz"]["database"]) == {"database_unavailable"}
