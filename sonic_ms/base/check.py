"""Can this machine run sonic-base? Build its graphs with random weights, compile and run each, and measure.

`sonic-ms check --model base --full-size` answers before the weights are there. Every unit has a process of its own, so
that its peak memory is its own.
"""

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from sonic_ms.base.configs import (
    AdapterConfig,
    CLIPConfig,
    RIFEConfig,
    UNetConfig,
    VAEConfig,
    YOLOFaceConfig,
)
from sonic_ms.base.graphs import sample_inputs
from sonic_ms.base.units import BaseGear, base_units
from sonic_ms.errors import ResourceError
from sonic_ms.nn.sizes import WhisperConfig

ANCHORS = ((4, 5, 8, 10, 13, 16), (23, 29, 43, 55, 73, 105), (146, 217, 231, 300, 335, 433))
PUBLISHED = {
    "unet": UNetConfig((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, 256, 768),
    "vae": VAEConfig((128, 256, 512, 512)),
    "clip": CLIPConfig(1280, 5120, 32, 16, 224, 14, 1024),
    "whisper": WhisperConfig(384, 4, 6, 1536),
    "audio2token": AdapterConfig(10, 5, 384, 1024, 1024, 32),
    "audio2bucket": AdapterConfig(50, 1, 384, 1024, 1, 2, 1024),
    "rife": RIFEConfig(),
    "yoloface": YOLOFaceConfig(48, 2, 6, ANCHORS),
}
# The same graphs with a few channels: whether every operator runs here, in a minute.
SMALL = {
    "unet": UNetConfig((32, 64), (1, 2), 64, 32, 96, layers_per_block=1),
    "vae": VAEConfig((32, 32, 32, 32), 1),
    "clip": CLIPConfig(64, 128, 2, 4, 56, 14, 64),
    "whisper": WhisperConfig(64, 2, 4, 128, max_source_positions=150),
    "audio2token": AdapterConfig(10, 3, 64, 64, 64, 32),
    "audio2bucket": AdapterConfig(50, 1, 64, 64, 1, 2, 64),
    "rife": RIFEConfig(16),
    "yoloface": YOLOFaceConfig(8, 1, 1, ANCHORS),
}
SIDE, FRAMES = 256, 4  # of the pictures in pixels, and of a window and a chunk


def units(configs, side=SIDE, frames=FRAMES, precision="fp32", rounded=False):
    """{name: Unit} whose Cells have random weights, rounded to float16 if asked for; one guidance branch."""

    def build(network, part, *size):
        from sonic_ms.base import cells

        return randomise(cells.empty(configs[network], network, part, *size, precision=precision), rounded)

    gear = BaseGear(side, side, chunk=frames, frames=frames, detector=(side, side))
    return base_units(configs, gear, build, precision)


UNITS = tuple(units(PUBLISHED))


def randomise(cell, rounded=False):
    """Fill every matrix and every bias of a Cell with random numbers that keep the size of what they multiply, the same
    ones in every process; scales of norms keep their start values. Smaller ones would vanish in float16 on the way
    through a deep network. rounded: to what float16 can hold."""
    import mindspore as ms

    rng = np.random.default_rng(0)
    for parameter in cell.get_parameters():
        parameter.init_data()
        if len(parameter.shape) > 1:
            values = rng.standard_normal(parameter.shape, np.float32)
            values *= np.float32(1 / np.sqrt(np.prod(parameter.shape[1:])))
        elif parameter.name.endswith("bias"):  # MindSpore starts them at random, without a seed
            values = rng.standard_normal(parameter.shape, np.float32) * np.float32(0.02)
        else:
            continue
        values = values.astype(np.float16) if rounded else values
        parameter.set_data(ms.Tensor(values).astype(parameter.dtype))
    return cell


def peak_gigabytes():
    """Most memory this process has had so far, in GB (Linux: of this program alone, not of what started it)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def check_unit(name, full_size=True, side=SIDE, frames=FRAMES, precision="fp32"):
    """Build, compile and run one unit: dict of unit, parameters, compile_s, run_s, peak_gb, finite."""
    from sonic_ms.runtime.ms import start

    ms = start()
    unit = units(PUBLISHED if full_size else SMALL, side, frames, precision)[name]
    cell = unit.build()
    inputs = [ms.Tensor(array) for array in sample_inputs(unit).values()]
    started = time.perf_counter()
    cell.compile(*inputs)
    compile_seconds = time.perf_counter() - started
    cell(*inputs)  # the first run also loads kernels
    started = time.perf_counter()
    outputs = cell(*inputs)
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    finite = all(bool(np.isfinite(part.asnumpy()).all()) for part in parts)
    return {
        "unit": name,
        "parameters": sum(int(np.prod(parameter.shape)) for parameter in cell.get_parameters()),
        "compile_s": round(compile_seconds, 1),
        "run_s": round(time.perf_counter() - started, 3),
        "peak_gb": round(peak_gigabytes(), 2),
        "finite": finite,
    }


def check(names=UNITS, full_size=True, side=SIDE, frames=FRAMES, precision="fp32"):
    """Yield the figures of every unit; ResourceError when the system stops one, as it does when memory ends."""
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            try:
                yield pool.submit(check_unit, name, full_size, side, frames, precision).result()
            except BrokenProcessPool as error:
                raise ResourceError(
                    f"the system stopped {name} at {side}x{side}, {frames} frames, most likely for want of memory; "
                    "try --precision fp16"
                ) from error


def format_row(row):
    """One line of the table that `sonic-ms check` prints."""
    verdict = "" if row["finite"] else "  NOT FINITE"
    return (
        f"{row['unit']:14}{row['parameters'] / 1e6:10.1f} M{row['compile_s']:9.1f} s{row['run_s']:9.3f} s"
        f"{row['peak_gb']:8.2f} GB{verdict}"
    )


HEADER = f"{'unit':14}{'parameters':>12}{'compile':>11}{'run':>11}{'peak':>11}"
