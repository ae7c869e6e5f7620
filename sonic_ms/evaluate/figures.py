"""A figure: one measured number with its label, its bar and its verdict; and all of them as a table."""


def figure(label, value, bar="", passed=None, note="", items=None):
    """One figure as a dict; see evaluate. Without a value there is no verdict."""
    figure = {
        "label": label,
        "value": value if value is None or isinstance(value, int) else float(value),
        "bar": bar,
        "passed": None if passed is None or value is None else bool(passed),
        "note": note,
    }
    if items is not None:
        figure["items"] = items
    return figure


def _number(value):
    if value is None:
        return "n/a"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def format_table(figures):
    """Figures as a Markdown table with aligned columns."""
    verdicts = {True: "pass", False: "FAIL", None: "-"}
    rows = [("figure", "value", "bar", "verdict", "note")]
    for one in figures.values():
        rows.append((one["label"], _number(one["value"]), one["bar"], verdicts[one["passed"]], one["note"]))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
