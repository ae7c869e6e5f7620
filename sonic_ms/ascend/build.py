"""Run a graph compiler over the units of a bundle: skip what is finished, keep logs, write down what was run.

Used by atc.py and lite.py, which say what to run. Each unit gets a folder of its own with the compiled graph, the
compiler's log and build.json, which holds the fingerprint of everything the result depends on.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sonic_ms.ascend.facts import find_chip
from sonic_ms.deploy.bundle import file_entry, file_problem, inside, write_manifest
from sonic_ms.errors import EngineError, InputMissingError, OutputError, WeightsError
from sonic_ms.files.digest import sha256_of
from sonic_ms.files.reading import read_json
from sonic_ms.runtime.cann import cann_version

RECORD = "build.json"


@dataclass(frozen=True)
class Job:
    """One compiler call. kind: the manifest's key for the result; source: "onnx" or "mindir"; folder: for everything
    that is written; written: {file name: text} to put there first; suffix: of the compiled graph."""

    unit: str
    kind: str
    source: str
    soc: str
    argv: tuple[str, ...]
    folder: Path
    written: dict
    suffix: str


def find_tool(name, hint):
    """Path of an executable; EngineError when it is not on PATH."""
    path = shutil.which(name)
    if path is None:
        raise EngineError(f"{name} is not on PATH; {hint}")
    return path


def operators_folder():
    """CANN's folder of operators, which its set_env.sh names. Raises EngineError."""
    opp = os.environ.get("ASCEND_OPP_PATH")
    if not opp or not Path(opp).is_dir():
        raise EngineError(f"ASCEND_OPP_PATH is {opp or 'not set'}; source CANN's set_env.sh first")
    return Path(opp)


def require_operators(chip):
    """Refuse a CANN without the chip's operators (a package of its own since CANN 8.5)."""
    opp = operators_folder()
    # the place ATC's page on --modify_mixlist names
    folder = opp / "built-in" / "op_impl" / "ai_core" / "tbe" / "config" / f"ascend{chip.family.lower()}"
    if not folder.is_dir():
        raise EngineError(
            f"CANN in {opp} has no operators for {chip.soc} ({folder} is missing); install its ops package"
        )


def installed_cann(chip):
    """Version of the installed CANN, or "unknown". Raises UsageError when it no longer has the chip, EngineError when
    the chip's operators are missing."""
    version = cann_version(operators_folder())
    if version != "unknown":
        find_chip(chip.soc, version)
    require_operators(chip)
    return version


def fingerprint(bundle, plan, tool_version):
    """sha256 over the command, the graph's files, the written files and the compiler's version."""
    content = {
        "argv": plan.argv,
        "graph": bundle.manifest["units"][plan.unit][plan.source],
        "written": plan.written,
        "version": tool_version,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def run_plans(bundle, plans, tool_version, report=print):
    """Compile every plan that is not finished, and record it in the manifest. Returns the units that were compiled."""
    done = []
    for plan in plans:
        bundle.path(plan.unit, plan.source)  # refuses a damaged graph
        mark = fingerprint(bundle, plan, tool_version)
        entry = _finished(bundle, plan, mark)
        if entry:
            report(f"{plan.unit}: finished before, inputs unchanged")
        else:
            report(f"{plan.unit}: {shlex.join(plan.argv)}")
            entry = _compile(bundle, plan, mark, tool_version)
            done.append(plan.unit)
        bundle.manifest["units"][plan.unit][plan.kind] = entry
        write_manifest(bundle.folder, bundle.manifest)
    return done


def _finished(bundle, plan, mark):
    """The manifest entry of an earlier run with the same fingerprint whose files are all still as they were."""
    try:
        entry = read_json(plan.folder / RECORD, "the record of a build")
    except (InputMissingError, WeightsError):
        return None
    if file_problem(entry) or entry.get("fingerprint") != mark:
        return None
    for file in (entry, *entry.get("data", ())):
        path = inside(bundle.folder, file["path"])
        if not path.is_file() or sha256_of(path) != file["sha256"]:
            return None
    return entry


def _compile(bundle, plan, mark, tool_version):
    try:
        shutil.rmtree(plan.folder, ignore_errors=True)
        plan.folder.mkdir(parents=True)
        for name, text in plan.written.items():
            (plan.folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {plan.folder} ({error.strerror}); check space and rights") from error
    log = plan.folder / "log.txt"
    with open(log, "wb") as file:
        # the compilers leave kernel_meta and reports in the current folder
        result = subprocess.run(plan.argv, cwd=plan.folder, stdout=file, stderr=subprocess.STDOUT, check=False)
    if result.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise EngineError(
            f"unit {plan.unit}: {Path(plan.argv[0]).name} failed ({result.returncode}): {lines[-1]}; see {log}"
        )
    made = sorted(plan.folder.glob(f"{plan.unit}*{plan.suffix}"))
    if len(made) != 1:
        raise EngineError(
            f"unit {plan.unit}: expected one {plan.unit}*{plan.suffix} in {plan.folder}, found {len(made)}; see {log}"
        )
    data = sorted(path for path in plan.folder.glob("weight/*") if path.is_file())
    entry = file_entry(bundle.folder, made[0], data) | {
        "soc": plan.soc,
        "command": shlex.join(plan.argv),
        "version": tool_version,
        "python": sys.version.split()[0],
        "fingerprint": mark,
    }
    (plan.folder / RECORD).write_text(json.dumps(entry, indent=1) + "\n", encoding="utf-8")
    return entry


def pick_units(bundle, names, source):
    """Units to build: the named ones, or all that have the source graph. Raises EngineError."""
    bundle.check_device("Ascend")
    for name in names or ():
        bundle.path(name, source)  # refuses an unknown unit and one without this graph
    picked = list(names or (name for name in bundle.units if bundle.has(name, source)))
    if not picked:
        raise EngineError(f"{bundle.folder} has no {source} graph; export it with --format {source}")
    return picked
