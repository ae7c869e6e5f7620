"""`sonic-ms small report RUNS`: what the runs of a comparison found, as tables and a plot; nothing is typed by hand.

Every folder below RUNS with a small.json is a run. Arms that ran with the same seeds are compared seed by seed with the
arm `dense`: better or worse only where the difference has one sign on all seeds, three or more, and its mean exceeds
twice the spread of dense runs among themselves.
"""

import os
from pathlib import Path

import numpy as np

from sonic_ms.errors import InputMissingError, OutputError
from sonic_ms.files.temporary import Temporary
from sonic_ms.small.record import FILE, read_record

BASELINE, JUDGED = "dense", "inside_l1"
FEWEST_SEEDS = 3


def read_runs(folder):
    """[Record] of all runs below a folder, sorted. Raises InputMissingError when there is none."""
    found = [read_record(path.parent) for path in sorted(Path(folder).rglob(FILE))]
    if not found:
        raise InputMissingError(f"{folder} has no run: no {FILE} below it; train with a small_... recipe first")
    return sorted(found, key=lambda one: (one.recipe, one.arm, one.seed))


def verdict(own, dense):
    """What {seed: figure} of an arm says beside that of dense runs."""
    seeds = sorted(set(own) & set(dense))
    if len(seeds) < FEWEST_SEEDS:
        return f"{len(seeds)} common seeds: no verdict"
    differences = np.array([own[seed] - dense[seed] for seed in seeds])
    spread = np.std([dense[seed] for seed in dense], ddof=1)
    if abs(np.sign(differences).sum()) == len(seeds) and abs(differences.mean()) > 2 * spread:
        return "better" if differences.mean() < 0 else "worse"
    return "no difference found"


def tables(records):
    """Markdown: one table a recipe, a row an arm with mean, spread and all points of every figure; a verdict where the
    recipe has dense runs."""
    lines = []
    for recipe in dict.fromkeys(one.recipe for one in records):
        own = [one for one in records if one.recipe == recipe]
        arms = {}
        for one in own:
            arms.setdefault(one.arm, []).append(one)
        names = list(dict.fromkeys(name for one in own for name in one.figures))
        dense = {one.seed: one.figures[JUDGED] for one in arms.get(BASELINE, ()) if JUDGED in one.figures}
        heads = ["arm", "seeds", *names, *([f"against {BASELINE}"] if dense else [])]
        lines += [f"## {recipe}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for arm, runs in arms.items():
            cells = [_cell([one.figures[name] for one in runs if name in one.figures]) for name in names]
            judged = {one.seed: one.figures[JUDGED] for one in runs if JUDGED in one.figures}
            said = [] if not dense else [""] if arm == BASELINE else [verdict(judged, dense)]
            lines.append(f"| {' | '.join([arm, ', '.join(str(one.seed) for one in runs), *cells, *said])} |")
        lines.append("")
    return "\n".join(lines)


def _cell(values):
    if not values:
        return ""
    if len(set(values)) == 1:
        return f"{values[0]:.6g}"
    shown = ", ".join(f"{value:.4g}" for value in values)
    return f"{np.mean(values):.4g} ± {np.std(values, ddof=1):.2g} ({shown})"


def plot(records, path):
    """Error against the weights that are not 0, one point a run; nothing without matplotlib. Whether there is a
    plot."""
    points = [one for one in records if {JUDGED, "nonzero"} <= set(one.figures)]
    try:
        import matplotlib
    except ImportError:
        return False
    if not points:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for arm in dict.fromkeys(one.arm for one in points):
        own = [one for one in points if one.arm == arm]
        axis.plot([one.figures["nonzero"] for one in own], [one.figures[JUDGED] for one in own], "o", label=arm)
    axis.set_xscale("log")
    axis.set_xlabel("weights that are not 0")
    axis.set_ylabel("mean absolute error inside the mouth")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    return True


def write_report(runs, out):
    """Write out/report.md and out/report.png; {"report", "runs"}. Raises InputMissingError, OutputError."""
    records, out = read_runs(runs), Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        text = tables(records)
        if plot(records, out / "report.png"):
            text += "\n![every run](report.png)\n"
        with Temporary(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, out / "report.md")
    except OSError as error:
        raise OutputError(f"cannot write in {out}: {error.strerror}") from error
    return {"report": str(out / "report.md"), "runs": len(records)}
