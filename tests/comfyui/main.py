"""Start a ComfyUI, in its own interpreter: main.py FOLDER [arguments of ComfyUI].

scripts/comfyui-test-setup makes FOLDER. The torchvision there is built for another torch: the operators that its Python
names at import are declared empty.
"""

import os
import runpy
import sys
from pathlib import Path

import torch

for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
app = Path(sys.argv.pop(1)) / "app"
os.chdir(app)
sys.path[0] = str(app)
runpy.run_path(str(app / "main.py"), run_name="__main__")
