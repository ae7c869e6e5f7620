"""What a coarser grid of the flow and a thinner texture do to the picture: a record for each, nothing is trained.

    python -m bench.small_lookup [--out runs/lookup] [--side 256]

Frames of the demo's speech against those of 8 texels a pixel and 192 nodes a side, 8-bit values, before encoding: mean
difference and PSNR of the whole square, and of the patch over the mouth. Multiply-adds are those that enlarge the flow,
a frame; look-ups are as many in all. No times. Then: sonic-ms small report runs/lookup
"""

import argparse
from pathlib import Path

import numpy as np

from sonic_ms.edge import texture
from sonic_ms.runtime.ms import start

FINEST = (8, 192)  # texels a pixel, nodes a side
CHOICES = [(o, c) for o in (2, 3, 4) for c in (48, 64, 96)]
FRAMES = 4  # a call
CALLS = 6


def frames(choice, side, crop, rig, curves):
    """uint8 (n, side, side, 3) frames and the Patch, drawn with (texels a pixel, nodes a side)."""
    from mindspore import Tensor

    from sonic_ms.edge import renderer
    from sonic_ms.edge.rig import frame_parameters
    from sonic_ms.small.painter import load_painter

    before = texture.OVERSAMPLING, texture.COARSE
    for module in (texture, renderer):
        module.OVERSAMPLING, module.COARSE = choice
    try:
        painter = renderer.fold_norms(load_painter("shipped")[1].set_train(False))
        cell, patch = renderer.EdgeRenderer(painter, side).set_train(False), texture.place_patch(rig.roi, side)
        constants = [Tensor(texture.make_texture(crop)), *map(Tensor, patch.matrices.values())]
        drawn = []
        for first in np.linspace(0, len(curves) - FRAMES, CALLS).astype(int):
            rows = frame_parameters(rig, curves[first : first + FRAMES], np.zeros((FRAMES, 6)))
            squares, patches = (one.asnumpy() for one in cell(*constants, Tensor(rows)))
            colours = texture.unpack(squares)[..., 2::-1].copy()
            colours[:, patch.rows, patch.columns] = (patches + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)
            drawn.append(colours)
    finally:
        for module in (texture, renderer):
            module.OVERSAMPLING, module.COARSE = before
    return np.concatenate(drawn).astype(np.float32), patch


def enlarging(nodes, side):
    """Multiply-adds a frame: two planes of the whole square, six of the patch, each two products."""
    height, width = texture.patch_size(side)
    return 2 * (nodes * nodes * side + side * nodes * side) + 6 * (nodes * nodes * width + height * nodes * width)


def psnr(difference):
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/lookup")
    parser.add_argument("--side", type=int, default=256)
    args = parser.parse_args()
    import cv2

    ms = start()
    ms.set_context(mode=ms.PYNATIVE_MODE)  # every choice is a graph of its own, run a few times
    from sonic_ms.edge.graphs import demo
    from sonic_ms.small.record import write_record
    from sonic_ms.small.search import pareto

    _, scene, curves = demo()
    crop = cv2.resize(scene.crop, (args.side, args.side), interpolation=cv2.INTER_AREA)
    exact, patch = frames(FINEST, args.side, crop, scene.rig, curves)
    found = {}
    for texels, nodes in CHOICES:
        away = frames((texels, nodes), args.side, crop, scene.rig, curves)[0] - exact
        mouth = away[:, patch.rows, patch.columns]
        found[texels, nodes] = {
            "frames_l1": float(np.abs(away).mean()),
            "frames_psnr": psnr(away),
            "mouth_l1": float(np.abs(mouth).mean()),
            "mouth_psnr": psnr(mouth),
            "macs": enlarging(nodes, args.side),
            "texture_bytes": 4 * (texels * args.side) ** 2,
        }
        print(texels, nodes, found[texels, nodes], flush=True)
    scores = [(one["macs"], one["texture_bytes"], -one["frames_psnr"]) for one in found.values()]
    front = set(pareto(scores))
    for i, ((texels, nodes), figures) in enumerate(found.items()):
        folder = Path(args.out) / f"{texels}-{nodes}"
        folder.mkdir(parents=True, exist_ok=True)
        arm = f"{texels} texels a pixel, {nodes} nodes"
        write_record(folder, "look-up", arm, 0, figures | {"on_front": int(i in front)})


if __name__ == "__main__":
    main()
