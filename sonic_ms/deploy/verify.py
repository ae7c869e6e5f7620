"""`sonic-ms verify`: run every unit of a bundle on several engines and compare with the first one.

The reference is the bundle's MINDIR in MindSpore, which the exporter found equal to the Cells.
"""

from sonic_ms.errors import EngineError
from sonic_ms.runtime.choose import open_engine
from sonic_ms.runtime.unit import relative_error

REFERENCE = "mindspore"
# Largest relative L2 distance from the reference. fp16 rounds between other operators on each engine.
BARS = {
    "fp32": {"mindspore": 1e-6, "onnxruntime": 1e-5, "lite": 1e-3, "acl": 2e-2},
    "fp16": {"mindspore": 1e-6, "onnxruntime": 2e-2, "lite": 2e-2, "acl": 2e-2},
    "int8": {"mindspore": 1e-6, "onnxruntime": 8e-2, "lite": 8e-2, "acl": 8e-2},
}


def verify(bundle, engines, sample, units=None, open_engine=open_engine):
    """Compare engines on a bundle.

    engines: names of runtime.choose.ENGINES. sample(unit): its inputs. units: names, by default all.
    Returns a list of rows {unit, engine, output, max_abs, relative_l2, bar, passed}; an engine that fails on a unit
    gives one row with its message under "error".
    """
    rows = []
    chosen = [name for name in bundle.units if units is None or name in units]
    expected = {}
    for engine in dict.fromkeys((REFERENCE, *engines)):
        runtime = open_engine(engine, bundle)
        try:
            for name in chosen:
                row = {"unit": name, "engine": engine, "bar": BARS[bundle.precision][engine]}
                try:
                    outputs = runtime.run(name, sample(bundle.units[name]))
                except EngineError as error:
                    rows.append(row | {"output": "", "error": str(error), "passed": False})
                    continue
                expected.setdefault(name, outputs)
                if engine in engines:
                    rows += [row | one for one in _compare(outputs, expected[name], row["bar"])]
        finally:
            runtime.close()
    return rows


def _compare(outputs, expected, bar):
    for name, reference in expected.items():
        found = outputs[name]
        error = relative_error(found, reference)
        worst = float(abs(found.astype("float64") - reference).max())
        yield {"output": name, "max_abs": worst, "relative_l2": error, "passed": bool(error <= bar)}


def format_rows(rows):
    """The rows as a table in Markdown."""
    lines = ["| unit | engine | output | max abs error | relative L2 | bar | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        verdict = "pass" if row["passed"] else "**FAIL**"
        if "error" in row:
            lines.append(f"| {row['unit']} | {row['engine']} | {row['error']} | | | {row['bar']:g} | {verdict} |")
        else:
            lines.append(
                f"| {row['unit']} | {row['engine']} | {row['output']} | {row['max_abs']:.1e} | "
                f"{row['relative_l2']:.1e} | {row['bar']:g} | {verdict} |"
            )
    return "\n".join(lines)
