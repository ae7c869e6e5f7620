"""What rounding and cutting do to the shipped painter without any training: one record for each, for `small report`.

    python -m bench.small_rounding [--out runs/rounding] [--faces 16]

Judged on faces that no training draws, as the recipe of the painter is; needs no download.
"""

import argparse
from pathlib import Path

from sonic_ms.cli import main as sonic
from sonic_ms.edge.renderer import fold_norms
from sonic_ms.runtime.ms import start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/rounding")
    parser.add_argument("--faces", type=int, default=16)
    args = parser.parse_args()
    start()
    from sonic_ms.small.density import forward_flops
    from sonic_ms.small.painter import DRAWN_WITH, layer_work, load_painter, weights_named
    from sonic_ms.small.quantize import KINDS, stored_bytes
    from sonic_ms.small.record import FILE, write_record
    from sonic_ms.train.edge.renderer import HELD_OUT, EdgeRendererConfig, Pictures, draw_faces, inside_l1
    from sonic_ms.train.loop.trainer import LoopConfig

    pictures = Pictures(EdgeRendererConfig(LoopConfig(1, 1, 0.1), faces=1), [])
    faces = draw_faces(pictures, DRAWN_WITH, HELD_OUT, args.faces)
    arms = {"dense": [], **{kind: ["quantize", "--to", kind] for kind in KINDS}}
    arms |= {f"cut {widths}": ["prune", "--widths", widths] for widths in ("16,24,32", "8,24,32")}
    for arm, command in arms.items():
        folder = Path(args.out) / arm.replace(" ", "-").replace(",", "-")
        if (folder / FILE).is_file():
            continue
        if command and not folder.exists() and sonic(["small", *command, "--out", str(folder)]) != 0:
            raise SystemExit(1)
        folder.mkdir(parents=True, exist_ok=True)
        _, painter = load_painter(str(folder) if command else "shipped")
        fold_norms(painter.set_train(False))
        weights = weights_named(painter)
        size = sum(stored_bytes(a.shape, arm) if arm in KINDS else 4 * a.size for a in weights.values())
        figures = {
            "inside_l1": inside_l1(painter, faces),
            "nonzero": int(sum((a != 0).sum() for a in weights.values())),
            "bytes": size,
            "macs": forward_flops(layer_work(painter), {}),
        }
        write_record(folder, "rounding", arm, 0, figures)
        print(arm, figures, flush=True)


if __name__ == "__main__":
    main()
