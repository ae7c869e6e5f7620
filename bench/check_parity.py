#!/usr/bin/env python
"""Compare every network of sonic-base with upstream's own outputs.

    python -m bench.check_parity DIR [--module NAME] [--mode graph|pynative] [--dtype fp16] [--engine NAME] [--json OUT]

DIR holds one folder a module: config.json, the weights in upstream's format, io.npz with inputs and outputs. Each
module's weights go through the real converter and the strict loader; then the Cell runs and every output is compared.
With --engine the Cell is exported, compared with its file, and the file runs on that engine instead.
Exit code 0 if all are within their bars, 1 otherwise.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from sonic_ms.errors import SonicError, UsageError

# Bars: relative L2 of a small network, of UNet and VAE, of the loop's latents and frames; of any of them in fp16.
SINGLE, DEEP, LATENTS, FRAMES = 1e-5, 5e-5, 1e-4, 1e-3
HALF = 1.5e-2


class Module:
    """A folder of the reference set: its config, its arrays, and its weights as converted Cells."""

    def __init__(self, root, name, dtype, engine=None):
        self.root, self.folder, self.dtype = root, root / name, dtype
        self.engine = engine or run_cell
        self.config = json.loads((self.folder / "config.json").read_text())
        self.io = dict(np.load(self.folder / "io.npz", allow_pickle=False))

    def load(self, name=None):
        """Convert the weights of this folder (or of its neighbour `name`), load them strictly: (Cell, config)."""
        from sonic_ms.convert import checkpoints

        from sonic_ms.files.weights import load_config, load_weights, set_precision

        source = self.root / name if name else self.folder
        with tempfile.TemporaryDirectory() as converted:
            jobs, _ = checkpoints.plan(source)
            checkpoints.convert(jobs, converted, self.dtype)
            (job,) = jobs
            folder = Path(converted) / job.family.name
            config = load_config(type(job.config), folder)
            cell = set_precision(self.build(job.family, config), self.dtype)
            load_weights(cell, folder)
        return cell.set_train(False), config

    def build(self, family, config):
        if family.name == "rife":
            from sonic_ms.base.rife import RIFE

            return RIFE(config, *self.io["img0"].shape[2:])
        return family.cell(config)

    def run(self, cell, *arrays):
        """A Cell on arrays; returns an array or a tuple of arrays, float32."""
        dtype = np.float16 if self.dtype == "fp16" else np.float32
        out = self.engine(cell, [np.ascontiguousarray(array, dtype) for array in arrays])
        out = tuple(part.astype(np.float32) for part in out)
        return out if len(out) > 1 else out[0]


def run_cell(cell, arrays):
    """A Cell in MindSpore itself: list of arrays."""
    import mindspore as ms

    from sonic_ms.deploy.export import as_arrays

    return as_arrays(cell(*[ms.Tensor(array) for array in arrays]))


class ExportedEngine:
    """Runs a Cell as a bundle of one unit on an engine; exported once for each set of shapes."""

    def __init__(self, name, dtype, folder):
        self.name, self.dtype, self.folder, self.opened = name, dtype, Path(folder), {}

    def __call__(self, cell, arrays):
        key = (id(cell), *[array.shape for array in arrays])
        if key not in self.opened:
            self.opened[key] = cell, self.open(cell, arrays)  # the Cell is kept so that its id stays its own
        _, engine = self.opened[key]
        return list(engine.run("graph", {f"input_{index}": array for index, array in enumerate(arrays)}).values())

    def open(self, cell, arrays):
        from sonic_ms.deploy.export import export
        from sonic_ms.runtime.choose import open_engine
        from sonic_ms.runtime.unit import Tensor, Unit, UnitTable, normal_inputs

        def tensors(prefix, values):
            return tuple(Tensor(f"{prefix}_{i}", value.shape, str(value.dtype)) for i, value in enumerate(values))

        unit = Unit("graph", tensors("input", arrays), tensors("output", run_cell(cell, arrays)), lambda: cell)
        out, formats = self.folder / str(len(self.opened)), ("mindir",) if self.name == "mindspore" else ("onnx",)
        table = UnitTable("sonic-base", {"graph": unit}, normal_inputs, {}, {}, "", "")
        bundle = export(table, out, formats, self.dtype, progress=lambda line: None)
        return open_engine(self.name, bundle)


# Each check takes a Module and yields (output, ours, theirs, bar, measure); measure is relative L2 or max abs error.


def check_audio2token(module):
    cell, _ = module.load()
    states = module.io["audio_embeds"]  # (b, frames, seq_len, blocks, channels)
    out = module.run(cell, states.reshape(-1, *states.shape[2:]))
    yield "out", out.reshape(module.io["out"].shape), module.io["out"], SINGLE, "l2"


def check_audio2bucket(module):
    cell, _ = module.load()
    states = module.io["audio_embeds"]
    frames = states.reshape(-1, *states.shape[2:])
    clip = np.repeat(module.io["clip_embeds"], states.shape[1], 0)
    out = module.run(cell, frames, clip)
    yield "out", out.reshape(module.io["out"].shape), module.io["out"], SINGLE, "l2"


def check_clip_vision(module):
    cell, _ = module.load()
    yield "image_embeds", module.run(cell, module.io["pixel_values"]), module.io["image_embeds"], SINGLE, "l2"


def check_whisper_encoder(module):
    cell, _ = module.load()
    yield "hidden_states", module.run(cell, module.io["input_features"]), module.io["hidden_states"], SINGLE, "l2"


def check_rife(module):
    cell, _ = module.load()
    outputs = module.run(cell, module.io["img0"], module.io["img1"])
    for name, ours in zip(("flow", "mask", "out"), outputs):
        yield name, ours, module.io[name], SINGLE, "l2"


def check_yoloface(module):
    from sonic_ms.base.boxes import decode

    cell, config = module.load()
    predictions = decode(module.run(cell, module.io["image"]), config)
    yield "predictions", predictions, module.io["predictions"], SINGLE, "l2"


def check_vae(module):
    cell, _ = module.load()
    yield "latent_mean", module.run(cell.encoder, module.io["image"]), module.io["latent_mean"], DEEP, "l2"
    yield "frames", module.run(cell.decoder, module.io["latents"]), module.io["frames"], DEEP, "l2"


def check_unet(module):
    from sonic_ms.nn.host import frame_sinusoids, mask_tokens, time_sinusoids

    cell, config = module.load()
    sample = module.io["sample"]
    b, frames, _, height, width = sample.shape
    context = module.run(
        cell.context, module.io["clip_embeds"], module.io["audio_tokens"], frame_sinusoids(config, frames)
    )
    spatial, temporal, positions = context[:3], context[3:6], context[6]
    temporal = [part.reshape(b, frames, *part.shape[1:]).mean(1) for part in temporal]
    time, ids = time_sinusoids(config, module.io["timestep"], module.io["added_time_ids"])
    masks = mask_tokens(config, module.io["face_mask"][0, 0], height, width)
    out = module.run(cell.denoiser, sample, time, ids, masks, *spatial, *temporal, positions)
    yield "out", out, module.io["out"], DEEP, "l2"


def check_pipeline(module):
    """The loop from images and tokens to frames; the networks are those of the neighbouring folders."""
    from sonic_ms.base.decode import decode_frames
    from sonic_ms.base.denoise import Conditions, DenoiseSettings, denoise
    from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig

    io, config = module.io, module.config
    unet, unet_config = module.load("unet")
    vae, vae_config = module.load("vae")
    clip_vision, _ = module.load("clip_vision")
    levels = json.loads((module.root / "euler_scheduler" / "config.json").read_text())
    clip = Conditions(
        image_latents=module.run(vae.encoder, io["ref_image"])[0],
        buckets=io["motion_buckets"].reshape(-1, 2),
        mask=io["face_mask"][0, 0],
        clip_embedding=module.run(clip_vision, io["clip_image"])[0],
        audio=io["audio_tokens"],
        silence=io["uncond_audio_tokens"],
    )
    settings = DenoiseSettings(
        steps=config["num_inference_steps"],
        window=config["frames_per_batch"],
        overlap=config["overlap"],
        shift_offset=config["shift_offset"],
        image_guidance=(config["min_guidance_scale1"], config["max_guidance_scale1"]),
        audio_guidance=(config["min_guidance_scale2"], config["max_guidance_scale2"]),
        dynamic_scale=config["motion_bucket_scale"],
        fps=config["fps"],
    )
    scheduler = EulerScheduler(SchedulerConfig(levels["sigma_min"], levels["sigma_max"]), settings.steps)
    latents = denoise(
        lambda *arrays: module.run(unet.denoiser, *arrays),
        lambda *arrays: module.run(unet.context, *arrays),
        unet_config,
        clip,
        io["noise"][0],
        scheduler,
        settings,
        vae_config.scaling_factor,
    )
    yield "latents", latents[None], io["latents"], LATENTS, "l2"
    decode = decode_frames(
        lambda part: module.run(vae.decoder, part), latents / vae_config.scaling_factor, config["decode_chunk_size"]
    )
    frames = np.stack(list(decode), axis=1)[None]  # (1, 3, n, H, W)
    yield "frames", frames, io["frames"], FRAMES, "l2"


def check_log_mel(module):
    from sonic_ms.media.audio import log_mel

    mel = log_mel(module.io["waveform"], pad_to=module.config["chunk_s"] * module.config["sampling_rate"])
    yield "input_features", mel[None], module.io["input_features"], 1e-4, "max"


def check_euler_scheduler(module):
    from sonic_ms.base.scheduler import EulerScheduler, SchedulerConfig

    io, config = module.io, module.config
    scheduler = EulerScheduler(SchedulerConfig(config["sigma_min"], config["sigma_max"]), len(io["timesteps"]))
    yield "timesteps", scheduler.timesteps, io["timesteps"], 1e-6, "l2"
    yield "sigmas", scheduler.sigmas, io["sigmas"], 1e-6, "l2"
    yield "init_noise_sigma", np.float32(scheduler.init_noise_sigma), io["init_noise_sigma"], 1e-6, "l2"
    for row, index in enumerate(io["index"]):
        scaled = scheduler.scale_input(io["sample"], index)
        yield f"scaled[{index}]", scaled, io["scaled"][row], 1e-6, "l2"
        previous = scheduler.step(io["model_output"], io["sample"], index)
        yield f"prev_sample[{index}]", previous, io["prev_sample"][row], 1e-6, "l2"


def check_process_bbox(module):
    from sonic_ms.base.prepare import process_bbox

    ours = [process_bbox(row[:4], *row[4:]) for row in module.io["inputs"]]
    yield "out", np.array(ours), module.io["out"], 0, "max"


CHECKS = {name.removeprefix("check_"): function for name, function in globals().items() if name.startswith("check_")}


def error(ours, theirs, measure):
    """(max abs error, relative L2); infinite where shapes or finiteness differ."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return np.inf, np.inf
    difference = ours - theirs
    return np.abs(difference).max(), np.linalg.norm(difference) / max(np.linalg.norm(theirs), 1e-30)


def check(root, name, dtype, engine=None):
    """Rows of one module: dicts with module, output, max_abs, relative_l2, bar, measure, ok."""
    rows = []
    for output, ours, theirs, bar, measure in CHECKS[name](Module(root, name, dtype, engine)):
        if dtype == "fp16" and measure == "l2" and bar in (SINGLE, DEEP, LATENTS, FRAMES):
            bar = HALF
        largest, relative = error(ours, theirs, measure)
        value = largest if measure == "max" else relative
        rows.append(
            {
                "module": name,
                "output": output,
                "max_abs": float(largest),
                "relative_l2": float(relative),
                "bar": bar,
                "measure": measure,
                "ok": bool(value <= bar),
            }
        )
    return rows


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("dir", metavar="DIR", type=Path, help="folder with one folder a module")
    parser.add_argument("--module", choices=sorted(CHECKS), help="check this one only")
    parser.add_argument("--mode", choices=("graph", "pynative"), default="graph", help="how MindSpore runs the Cells")
    parser.add_argument("--dtype", choices=("fp32", "fp16"), default="fp32", help="weights and activations")
    parser.add_argument("--engine", choices=("mindspore", "onnxruntime", "lite"), help="run exported files on it")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    return parser.parse_args(arguments)


def check_all(options, folder):
    """Print the table of the modules asked for and return its rows. folder: for exported files."""
    present = [name for name in sorted(CHECKS) if (options.dir / name / "io.npz").is_file()]
    names = [options.module] if options.module else present
    if not names or not set(names) <= set(present):
        raise UsageError(f"{options.dir} has no reference for {', '.join(names) or 'any module'}")
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE if options.mode == "graph" else ms.PYNATIVE_MODE, device_target="CPU")
    engine = ExportedEngine(options.engine, options.dtype, folder) if options.engine else None
    rows = []
    print(f"{'module':16}{'output':18}{'max abs':>11}{'rel L2':>11}{'bar':>10}")
    for name in names:
        for row in check(options.dir, name, options.dtype, engine):
            rows.append(row)
            verdict = "ok" if row["ok"] else "FAILED"
            bar = f"{row['bar']:.0e} {'abs' if row['measure'] == 'max' else 'rel'}"
            numbers = f"{row['max_abs']:11.2e}{row['relative_l2']:11.2e}{bar:>10}"
            print(f"{name:16}{row['output']:18}{numbers}  {verdict}", flush=True)
    return rows


def main(arguments=None):
    options = parse(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rows = check_all(options, folder)
    except SonicError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    failed = sum(not row["ok"] for row in rows)
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
