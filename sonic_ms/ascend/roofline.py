"""Predicted speed: operations and bytes of each unit against a chip's peak and memory bandwidth. Never measured.

Two bounds: "at best" has every operator fused, so that only weights, inputs and outputs cross the memory; "unfused"
reads and writes every tensor. Real chips reach neither peak; a prediction is an order of magnitude, not a promise.
"""

from dataclasses import dataclass
from math import prod

from sonic_ms.ascend.facts import FAMILIES, default_soc, find_chip
from sonic_ms.ascend.graph import read_onnx
from sonic_ms.base.denoise import DenoiseSettings
from sonic_ms.base.guidance import plan, work_of
from sonic_ms.base.options import QUALITY
from sonic_ms.base.units import CACHE_BRANCHES
from sonic_ms.media.audio import FPS

FREE = ("Constant", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Shape")  # views
BASE_FPS = 12.5  # frames that are generated; RIFE doubles them
STEPS, GUIDANCE_BRANCHES = 25, 3  # defaults of sonic-base
CHUNK_SECONDS = 30  # of speech in one run of Whisper


@dataclass(frozen=True)
class Cost:
    """Of one run of a unit: operations, (operations, bytes) of each operator, and bytes of weights, inputs, outputs."""

    operations: float
    operators: tuple
    outside_bytes: float


def unit_cost(graph):
    """Cost of a graph in float16. Integers count as two bytes too: only indices are."""
    operators = []
    for node in graph.nodes:
        if node.op in FREE:
            continue
        names = dict.fromkeys((*node.inputs, *(name for name in node.outputs)))
        moved = 2 * sum(graph.size(name) or 0 for name in names if name)
        if node.op == "Gather":  # reads what it looks up, not the whole table
            moved = 2 * (2 * (graph.size(node.outputs[0]) or 0) + (graph.size(node.inputs[1]) or 0))
        operators.append((operations(graph, node), moved))
    outside = {*graph.constants, *graph.inputs, *graph.outputs}
    total = sum(count for count, _ in operators)
    return Cost(total, tuple(operators), 2 * sum(graph.size(name) or 0 for name in outside))


def operations(graph, node):
    """Multiplications and additions of an operator; element-wise ones count one a value."""
    out = graph.size(node.outputs[0]) or 0
    if node.op in ("Conv", "ConvTranspose"):
        weight = graph.shapes[node.inputs[1]]
        values = out if node.op == "Conv" else graph.size(node.inputs[0]) or 0
        return 2 * values * prod(weight[1:])
    if node.op in ("MatMul", "Gemm"):
        shape = graph.shapes.get(node.inputs[0]) or ()
        transposed = node.op == "Gemm" and node.attributes.get("transA")
        return 2 * out * ((shape[-2 if transposed else -1] if shape else 0) or 0)
    if node.op.startswith("Reduce") or node.op in ("MaxPool", "AveragePool", "Softmax"):
        return max(out, graph.size(node.inputs[0]) or 0)
    return out


def seconds(cost, chip):
    """(at best, unfused) seconds of one run on a chip."""
    rate = chip.bandwidth * 1e9
    best = max(cost.operations / chip.peak, cost.outside_bytes / rate)
    return best, sum(max(count / chip.peak, moved / rate) for count, moved in cost.operators)


def calls_per_second(units):
    """{unit: runs for one second of video} of a model's table of units, at the default settings.

    Of sonic-edge's renderers the one for 512 pixels, or the first there is.
    """
    if "edge_audio" in units:
        renderers = [name for name in units if name.startswith("edge_render")]
        renderer = "edge_render_512" if "edge_render_512" in units else renderers[0]
        batch = units[renderer].outputs[0].shape[0]
        return {"edge_audio": FPS / units["edge_audio"].outputs[0].shape[-1], renderer: FPS / batch}
    sample = units["unet"].inputs[0].shape  # (branches, frames, channels, height, width)
    frames = sample[1]
    return {
        "unet": STEPS * GUIDANCE_BRANCHES / sample[0] * BASE_FPS / frames,
        "vae_decoder": BASE_FPS / units["vae_decoder"].inputs[0].shape[0],
        "rife": BASE_FPS,
        "whisper": 1 / CHUNK_SECONDS,
        "audio2token": BASE_FPS / units["audio2token"].inputs[0].shape[0],
        "audio2bucket": BASE_FPS / units["audio2bucket"].inputs[0].shape[0],
    }


def cheaper_calls(units):
    """{name: {unit: runs for one second of video}} of sonic-base's ways to save work, those that a table of units has
    graphs for; see docs/base.md. None for other models, or for graphs that take all branches at once."""
    if "unet" not in units or units["unet"].inputs[0].shape[0] > 1:
        return {}
    plain, ways = calls_per_second(units), {}
    branches = [branch for branch in CACHE_BRANCHES if f"unet_shallow{branch}" in units]
    settings = {
        "guidance_reuse 2": {"guidance_reuse": 2},
        "image interval 0,0.6": {"image_guidance_interval": (0, 0.6)},
    }
    settings |= {
        f"feature_cache 2, branch {one}": {"feature_cache": 2, "feature_cache_branch": one} for one in branches
    }
    settings |= {f"quality {name}": values for name, values in QUALITY.items() if values}
    for name, values in settings.items():
        branch = values.get("feature_cache_branch", 0)
        cached = values.get("feature_cache", 1) > 1
        if cached and branch not in branches:
            continue
        loop = DenoiseSettings(
            image_interval=values.get("image_guidance_interval", (0, 1)),
            guidance_reuse=values.get("guidance_reuse", 1),
            feature_cache=values.get("feature_cache", 1),
        )
        work, window = work_of(plan(loop)), plain["unet"] / (STEPS * GUIDANCE_BRANCHES)
        runs = (
            {f"unet_features{branch}": work.whole, f"unet_shallow{branch}": work.shallow}
            if cached
            else {"unet": work.whole}
        )
        others = {unit: count for unit, count in plain.items() if unit != "unet"}
        ways[name] = {unit: count * window for unit, count in runs.items()} | others
    return ways


def bundle_costs(bundle):
    """{unit: (runs for one second of video, Cost)} of a bundle, without what runs once a clip (CLIP, the encoder of the
    VAE, the face detector, contexts). Raises WeightsError when an ONNX graph is missing."""
    calls = calls_per_second(bundle.units)
    return {unit: (count, unit_cost(read_onnx(bundle.path(unit, "onnx")))) for unit, count in calls.items()}


def cheaper_costs(bundle, costs):
    """{name: costs as of bundle_costs} of cheaper_calls. costs: of bundle_costs, whose units are not read again."""
    known = {unit: cost for unit, (_, cost) in costs.items()}
    ways = {}
    for name, calls in cheaper_calls(bundle.units).items():
        for unit in calls:
            if unit not in known:
                known[unit] = unit_cost(read_onnx(bundle.path(unit, "onnx")))
        ways[name] = {unit: (count, known[unit]) for unit, count in calls.items()}
    return ways


def predict(costs, socs=None):
    """[(Chip, at best, unfused)]: seconds a second of video, without the host. costs: as of bundle_costs."""
    rows = []
    for soc in socs or map(default_soc, FAMILIES):
        chip = find_chip(soc)
        pairs = [(count, seconds(cost, chip)) for count, cost in costs.values()]
        rows.append((chip, sum(n * best for n, (best, _) in pairs), sum(n * plain for n, (_, plain) in pairs)))
    return rows


def format_prediction(rows, costs):
    """Markdown: the units' costs, and seconds a second of video on each chip."""
    lines = ["| unit | runs a second | GFLOP a run | GFLOP a second of video |", "|---|---|---|---|"]
    for unit, (count, cost) in costs.items():
        gflop = cost.operations / 1e9
        lines.append(f"| {unit} | {count:.3g} | {gflop:.4g} | {gflop * count:.4g} |")
    lines += ["", "Predicted, never measured: seconds of chip time for one second of video.", ""]
    lines += ["| chip | peak TFLOPS fp16 | GB/s | at best | unfused |", "|---|---|---|---|---|"]
    for chip, best, plain in rows:
        lines.append(f"| {chip.soc} | {chip.peak / 1e12:.1f} | {chip.bandwidth:g} | {best:.3g} | {plain:.3g} |")
    return "\n".join(lines)


def format_cheaper(costs, ways, socs=None):
    """Markdown: seconds a second of video at best and unfused, a column for each way to save work; "" for none.

    costs: as of bundle_costs; ways: as of cheaper_costs."""
    if not ways:
        return ""
    columns = {"everything": predict(costs, socs)} | {name: predict(one, socs) for name, one in ways.items()}
    lines = ["", "Ways to save work, at best / unfused:", "", "| chip | " + " | ".join(columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for number, (chip, _, _) in enumerate(columns["everything"]):
        cells = [f"{rows[number][1]:.3g} / {rows[number][2]:.3g}" for rows in columns.values()]
        lines.append(f"| {chip.soc} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
