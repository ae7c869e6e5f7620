"""What sonic-edge's ear hears without some of its heads and inner channels, without any training: a record for each.

    python -m bench.small_heads [--out runs/heads] [--audio speech.wav]

Against the whole ear on the demo's speech: the lowest correlation of its nine rows, that of the opening alone, and the
share of frames where both hear closed lips or both do not. Then: sonic-ms small report runs/heads
"""

import argparse
from pathlib import Path

import numpy as np

from sonic_ms.edge.audio_features import hear
from sonic_ms.edge.curves import OPEN
from sonic_ms.edge.heard import CLOSURE
from sonic_ms.edge.shipped import ShippedGraphs
from sonic_ms.edge.units import EDGE_FOLDER, audio_config
from sonic_ms.files.shipped import DEMO_AUDIO
from sonic_ms.media.audio import load_audio
from sonic_ms.runtime.ort import OnnxEngine


class OtherWeights(ShippedGraphs):
    """The shipped graphs with weights from memory."""

    def __init__(self, tensors):
        super().__init__(EDGE_FOLDER)
        self.tensors = tensors

    def weights(self, unit):
        return self.tensors


def arms(groups, read):
    """Yield (arm, {name of a group: units that stay}, share of the layers' weights that stay)."""
    from sonic_ms.small.network import choose

    heads = {name: group for name, group in groups.items() if name.endswith("heads")}
    inner = {name: group for name, group in groups.items() if name.endswith("inner")}
    yield "whole", {}
    for name, group in heads.items():
        for head in range(group.count):
            yield f"without {name.removeprefix('whisper.')} {head}", {name: np.delete(np.arange(group.count), head)}
    for share in (0.75, 0.5):
        yield f"{share:.0%} of the inner channels", choose(read, inner, share)
        yield f"{share:.0%} of heads and inner channels", choose(read, groups, share)
    yield "50% of heads and inner channels, random", choose(read, groups, 0.5, np.random.default_rng(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/heads")
    parser.add_argument("--audio", default=str(DEMO_AUDIO))
    args = parser.parse_args()
    from sonic_ms.edge.shipped import weights_of
    from sonic_ms.runtime.ms import start

    start()
    from sonic_ms.small.network import masked, networks_of
    from sonic_ms.small.record import write_record

    _, groups, _ = networks_of(EDGE_FOLDER)["audio"]
    tensors, samples = weights_of(EDGE_FOLDER, "edge_audio"), load_audio(args.audio)
    closure, whole = audio_config().closure, None
    for arm, keep in arms(groups, tensors.get):
        engine = OnnxEngine(OtherWeights(masked(groups, keep, tensors)))
        heard = hear(lambda mel, e=engine: e.run("edge_audio", {"mel": mel})["heard"], samples)
        whole = heard if whole is None else whole
        rows = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(heard.T, whole.T)]
        alike = float(((heard[:, CLOSURE] > closure) == (whole[:, CLOSURE] > closure)).mean())
        left = [len(keep[name]) / groups[name].count for name in groups if name in keep]
        figures = {
            "lowest_r": min(rows),
            "opening_r": rows[OPEN],
            "closed_alike": alike,
            "left": float(np.mean(left or 1)),
        }
        folder = Path(args.out) / arm.replace(" ", "-").replace(",", "").replace("%", "")
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, "heads of the ear", arm, 0, figures)
        print(arm, figures, flush=True)


if __name__ == "__main__":
    main()
