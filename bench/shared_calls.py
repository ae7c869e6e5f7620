"""Would several jobs gain by sharing a graph call? python -m bench.shared_calls [--rounds N]

A call of the renderer draws EDGE_BATCH frames of one job. This rewrites the shipped graph for one frame and for the
frames of two and of four jobs, checks that they draw the same, and times them turn by turn in one process. All frames
have one portrait here; those of several jobs would have a texture each and gather from all of them, so what is shown is
the most that sharing could give. "Against 8" is how much more is drawn in the same time: median over the turns.
"""

import argparse
import statistics
import sys
import time

import numpy as np
import onnx
from onnx import numpy_helper

from sonic_ms.edge.shipped import ShippedGraphs
from sonic_ms.edge.units import EDGE_BATCH, EDGE_FOLDER
from sonic_ms.pipeline import unit_table
from sonic_ms.runtime.ort import open_session, run_session

BATCHES = (1, EDGE_BATCH, 2 * EDGE_BATCH, 4 * EDGE_BATCH)  # frames a call: one, of one job, of two, of four
SIDES = (256, 512)
THREADS = (1, 2)
NAMES = ["square", "patch"]


def with_batch(path, batch):
    """Bytes of a shipped renderer that draws `batch` frames a call: the batch stands in the shapes of its reshapes."""
    model = onnx.load(path, load_external_data=False)
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    constants |= {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Reshape":
            shape = numpy_helper.to_array(constants[node.input[1]]).copy()
            if shape[0] == EDGE_BATCH:
                shape[0] = batch
                constants[node.input[1]].CopyFrom(numpy_helper.from_array(shape, constants[node.input[1]].name))
    for value in (*model.graph.input, *model.graph.output):
        if value.name in ("parameters", *NAMES):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    return model.SerializeToString()


def check(sessions, feeds):
    """Every batch draws the frames that the shipped graph draws."""
    whole = run_session(sessions[BATCHES[-1]], NAMES, feeds[BATCHES[-1]], "the largest")
    for batch in BATCHES:
        drawn = run_session(sessions[batch], NAMES, feeds[batch], f"the one of {batch}")
        square, patch = (one[:batch] for one in whole)
        different = drawn[0].view(np.uint8).astype(int) - square.view(np.uint8)
        assert np.abs(different).max() <= 1 and np.abs(drawn[1] - patch).max() < 0.05, batch


def timed(session, feed, batch):
    """(processor, wall) milliseconds a frame, over the calls that draw as many frames as the largest batch has."""
    started, busy = time.perf_counter(), time.process_time()
    for _ in range(BATCHES[-1] // batch):
        run_session(session, NAMES, feed, f"the one of {batch}")
    return [1000 * spent / BATCHES[-1] for spent in (time.process_time() - busy, time.perf_counter() - started)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="turns (default: 30)")
    rounds = parser.parse_args().rounds
    shipped, sample = ShippedGraphs(EDGE_FOLDER), unit_table("sonic-edge").sample
    print("| square | threads | frames a call | processor ms a frame, median and least | against 8 | wall, against 8 |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        name = f"edge_render_{side}"
        feed = sample(shipped.units[name])
        rows = np.concatenate([sample(shipped.units[name], seed)["parameters"] for seed in range(4)])
        feeds = {batch: feed | {"parameters": rows[:batch]} for batch in BATCHES}
        for threads in THREADS:
            sessions = {
                batch: open_session(with_batch(shipped.path(name, "onnx"), batch), weights=shipped.weights(name),
                                    threads=threads)
                for batch in BATCHES
            }  # fmt: skip
            check(sessions, feeds)
            times = {batch: [] for batch in BATCHES}
            for turn in range(rounds):
                for batch in BATCHES if turn % 2 else BATCHES[::-1]:
                    times[batch].append(timed(sessions[batch], feeds[batch], batch))
            for batch in BATCHES:
                spent = [busy for busy, _ in times[batch]]
                against = [
                    statistics.median(eight[what] / one[what] for one, eight in zip(times[batch], times[EDGE_BATCH]))
                    for what in (0, 1)
                ]
                print(f"| {side} | {threads} | {batch} | {statistics.median(spent):.1f}, {min(spent):.1f} | "
                      f"{against[0]:.2f} | {against[1]:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
