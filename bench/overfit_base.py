#!/usr/bin/env python
"""Train a tiny sonic-base on two short synthetic clips until it can repeat them, and measure what it generates.

    python -m bench.overfit_base OUT [--steps 600] [--vae-steps 600] [--resume]

The clips are made by sonic-edge: one portrait, two pieces of speech, 0.64 s each, 64x64 pixels around the face. A tiny
VAE learns the pictures first; then the recipe of sonic-base trains the UNet and both audio networks on them. At the
end the pipeline generates both clips from the portrait and the sound, and the loss of the first and of the trained
networks is measured on the same noise and noise levels: the loss of a training step depends on the level it draws.
Writes OUT/model (a complete converted folder), OUT/frames.png (truth, generated, truth, generated) and OUT/report.json.
Exit code 0 if the loss fell 20 times, both videos match their clip with a PSNR of 28 dB, and each is nearer to the clip
of its own sound around the mouth, by 1 dB. Needs torch, which writes the tiny networks that are not trained.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

SIDE, FRAMES, DRAWN = 64, 8, 256  # pixels, frames of a clip at 12.5 a second, pixels sonic-edge draws
CHUNK = 4  # frames the VAE decodes together
SAMPLES = FRAMES * 1280  # of 16 kHz audio
SEED = 0
LEVELS = 64  # batches that measure the loss before and after


def speech_pieces():
    """Two pieces of the demo speech, SAMPLES long: the loudest, and the one that differs most in its envelope."""
    from sonic_ms.media.audio import load_audio

    samples = load_audio(str(ROOT / "sonic_ms" / "examples" / "speech.wav"))
    starts = range(0, len(samples) - SAMPLES, 1280)
    envelope = np.array([np.abs(samples[i : i + SAMPLES]).reshape(FRAMES, -1).mean(1) for i in starts])
    first = int(np.argmax(envelope.sum(1)))
    loud = envelope.sum(1) > 0.5 * envelope.sum(1).max()
    second = int(np.argmax(np.linalg.norm(envelope - envelope[first], axis=1) * loud))
    return [samples[starts[i] : starts[i] + SAMPLES] for i in (first, second)]


def talking_clips(pieces):
    """(frames of every piece (FRAMES, SIDE, SIDE, 3) uint8, face box x1, y1, x2, y2 in those pixels)."""
    import cv2

    from sonic_ms.face.detect import FaceAnalyzer
    from sonic_ms.pipeline import load_model

    model = load_model("sonic-edge")
    clips = []
    for piece in pieces:
        options = {"min_resolution": DRAWN, "motion_scale": 0.0, "lip_sync_correction": False, "dynamic_scale": 1.5}
        video = model.generate(image=str(ROOT / "sonic_ms" / "examples" / "portrait.jpg"), audio=piece, **options)
        clips.append(np.stack(list(video))[::2][:FRAMES])
    x, y, width, height = FaceAnalyzer().detect(clips[0][0])[0].box
    side = 1.3 * max(width, height)
    left, top = x + width / 2 - side / 2, y + height / 2 - side / 2
    matrix = np.array([[SIDE / side, 0, -left * SIDE / side], [0, SIDE / side, -top * SIDE / side]])
    small = [[cv2.warpAffine(f, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=1) for f in c] for c in clips]
    edge = SIDE * (1 - 1 / 1.3) / 2
    return [np.stack(frames) for frames in small], (edge, edge, SIDE - edge, SIDE - edge)


def start_networks(folder):
    """A converted folder of tiny networks, random ones; those that are trained get sizes of their own."""
    import mindspore as ms
    from sonic_ms.convert import checkpoints

    from sonic_ms.base.cells import CELLS
    from sonic_ms.base.configs import UNetConfig, VAEConfig
    from sonic_ms.files.weights import save_model
    from tests.support import tiny_checkpoint as make_tiny_checkpoint

    with tempfile.TemporaryDirectory() as tree:
        make_tiny_checkpoint.write_tree(tree, SEED)
        checkpoints.convert(checkpoints.plan(tree)[0], folder)
    ms.set_seed(SEED)
    configs = {
        "unet": UNetConfig((32, 64), (1, 2), make_tiny_checkpoint.CROSS, 32, 96, layers_per_block=1, num_frames=FRAMES),
        "vae": VAEConfig((32, 32, 32), layers_per_block=1),
    }
    for name, config in configs.items():
        save_model(CELLS[name](config), config, folder / name)


def train_vae(folder, clips, steps):
    """Teach the VAE the pictures; its scaling factor becomes 1 / standard deviation of its latents."""
    import dataclasses

    from mindspore import nn, ops

    from sonic_ms.base.configs import VAEConfig
    from sonic_ms.base.prepare import image_tensor
    from sonic_ms.base.vae import VAE
    from sonic_ms.files.weights import load_config, load_weights, save_model
    from sonic_ms.train.loop.trainer import LoopConfig, train

    class Repeat(nn.Cell):
        """Mean squared error of the pictures that come back."""

        def __init__(self, vae):
            super().__init__()
            self.vae = vae

        def construct(self, pictures):
            error = self.vae.decoder(self.vae.encoder(pictures)) - pictures
            return ops.reduce_mean(error * error)

    pictures = [np.concatenate([image_tensor(frame) for frame in clip]) for clip in clips]
    config = load_config(VAEConfig, folder / "vae")
    vae = load_weights(VAE(config), folder / "vae")
    loop = LoopConfig(steps, 1, 2e-3, warmup=20, weight_decay=0.0, epsilon=1e-8, log_every=20, save_every=10**6)

    def chunk(rng, size):
        clip, first = pictures[rng.integers(len(pictures))], rng.integers(FRAMES // CHUNK) * CHUNK
        return (clip[first : first + CHUNK],)

    train(Repeat(vae), chunk, loop, folder.parent / "vae_run")
    import mindspore as ms

    vae.set_train(False)
    parts = np.concatenate(pictures).reshape(-1, CHUNK, *pictures[0].shape[1:])
    latents = [vae.encoder(ms.Tensor(part)).asnumpy() for part in parts]
    config = dataclasses.replace(config, scaling_factor=float(1 / np.std(np.concatenate(latents))))
    save_model(vae, config, folder / "vae")
    back = np.concatenate([to_bytes(vae.decoder(ms.Tensor(part)).asnumpy()) for part in latents])
    return [psnr(ours, clip) for ours, clip in zip(back.reshape(-1, *clips[0].shape), clips)]


def to_bytes(pictures):
    """(n, 3, H, W) in [-1, 1] -> (n, H, W, 3) uint8."""
    return np.round((np.clip(pictures, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def psnr(ours, theirs):
    """Peak signal to noise ratio of two uint8 arrays, dB."""
    error = np.mean((ours.astype(np.float64) - theirs) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def samples_of(folder, clips, pieces, box):
    """The clips as the recipe takes them (see train/clips.py), through the networks of `folder`."""
    from sonic_ms.base.encode import whisper_states
    from sonic_ms.base.networks import open_folder
    from sonic_ms.base.prepare import clip_tensor, face_mask, image_tensor

    networks = open_folder(folder)
    portrait = clips[0][0]
    embedding = networks.run("clip", clip_tensor(portrait, networks.configs["clip"].image_size))[0]
    out = []
    for clip, piece in zip(clips, pieces):
        positions = networks.configs["whisper"].max_source_positions
        states = whisper_states(lambda mel: networks.run("whisper", mel), piece, positions)
        out.append(
            {
                "latents": np.concatenate([networks.run("vae_encoder", image_tensor(frame)) for frame in clip]),
                "image_latents": networks.run("vae_encoder", image_tensor(portrait))[0],
                "clip_embedding": embedding,
                "whisper_states": states,
                "mask": face_mask(box, SIDE, SIDE).astype(np.float32) / 255,
                "buckets": np.float32([8, 24]),
                "fps": 12.5,
            }
        )
    return out


def generate(folder, portrait, piece, box):
    """Frames (FRAMES, SIDE, SIDE, 3) uint8 that the pipeline makes of the portrait and a piece of sound."""
    from sonic_ms.pipeline import load_model

    x1, y1, x2, y2 = box
    video = load_model(folder).generate(
        portrait,
        piece,
        face_box=(x1, y1, x2 - x1, y2 - y1),
        min_resolution=SIDE,
        interpolation=False,
        image_guidance=1.0,
        audio_guidance=1.0,
        shift_offset=0,  # training always saw frame 0 first
        decode_chunk_size=CHUNK,
        seed=SEED,
    )
    return np.stack(list(video))


def fixed_loss(folder, samples, config):
    """Loss of the networks in `folder` on LEVELS batches whose noise and noise levels are always the same."""
    import mindspore as ms

    from sonic_ms.train.base.clips import ClipBatches
    from sonic_ms.train.base.finetune import Networks
    from sonic_ms.train.base.trained import build_loss

    networks = Networks(folder, "fp32")
    loss = build_loss(networks, config).set_train(False)
    batches = ClipBatches(samples, FRAMES, networks.configs, networks.configs["vae"].scaling_factor, config.noise)
    values = []
    for number in range(LEVELS):
        batch = batches(np.random.default_rng([SEED, 10**6, number]), config.loop.batch_size)
        values.append(float(loss(*(ms.Tensor(array) for array in batch)).asnumpy()))
    return float(np.mean(values))


def mouth(frames):
    """The lower middle of the face."""
    return frames[:, SIDE // 2 : -SIDE // 8, SIDE // 4 : -SIDE // 4]


def picture(path, rows):
    """Every second frame of each row, twice as large, one PNG."""
    import cv2

    sheet = np.concatenate([np.concatenate(list(row[::2]), axis=1) for row in rows])
    cv2.imwrite(str(path), cv2.resize(sheet[:, :, ::-1], None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the model, frames.png and report.json")
    parser.add_argument("--steps", type=int, default=600, help="of the UNet (default: 600)")
    parser.add_argument("--vae-steps", type=int, default=600, help="of the VAE (default: 600)")
    parser.add_argument("--resume", action="store_true", help="go on from what is in OUT")
    parser.add_argument("--batch", type=int, default=2, help="clips a step (default: 2)")
    options = parser.parse_args(arguments)
    import mindspore as ms

    from sonic_ms.train.base.diffusion import NoiseConfig
    from sonic_ms.train.base.finetune import BaseFinetuneConfig, finetune
    from sonic_ms.train.loop.trainer import LoopConfig

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    out, start = options.out, options.out / "start"
    if options.resume:
        report = json.loads((out / "vae.json").read_text())
        saved = np.load(out / "clips.npz")
        clips, pieces, box = list(saved["clips"]), list(saved["pieces"]), tuple(map(float, saved["box"]))
    else:
        out.mkdir(parents=True, exist_ok=True)
        pieces = speech_pieces()
        clips, box = talking_clips(pieces)
        np.savez(out / "clips.npz", clips=clips, pieces=pieces, box=box)
        start_networks(start)
        began = time.time()
        report = {"vae_psnr": train_vae(start, clips, options.vae_steps), "vae_seconds": round(time.time() - began)}
        (out / "vae.json").write_text(json.dumps(report))
    print(report, flush=True)
    samples = samples_of(start, clips, pieces, box)
    loop = LoopConfig(
        options.steps,
        options.batch,
        2e-3,
        warmup=50,
        weight_decay=0.0,
        epsilon=1e-8,
        average=0.99,
        log_every=5,
        save_every=50,
        seed=SEED,
    )
    config = BaseFinetuneConfig(
        str(start),
        "made up",
        loop,
        trainable=("all",),
        frames=FRAMES,
        noise=NoiseConfig(log_mean=1.0, log_std=1.6, bucket_scale=(1.0, 1.0)),
        recompute=False,
    )
    if not (options.resume and (out / "model" / "unet").is_dir()):  # it is written once all steps are done
        finetune(config, samples, out, resume=options.resume and (out / "checkpoints").is_dir())
    with open(out / "loss.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    generated = [generate(out / "model", clips[0][0], piece, box) for piece in pieces]
    still = np.repeat(clips[0][:1], FRAMES, 0)  # what a model that only repeats the portrait would get
    report |= {
        "unet_steps": int(rows[-1]["step"]),
        "unet_seconds": float(rows[-1]["seconds"]),
        "loss_of_first_5_steps": float(rows[0]["train"]),
        "loss_of_last_50_steps": float(np.mean([float(row["train"]) for row in rows[-10:]])),
        "loss_before": fixed_loss(start, samples, config),
        "loss_after": fixed_loss(out / "model", samples, config),
        "psnr": [psnr(ours, clip) for ours, clip in zip(generated, clips)],
        "psnr_of_the_still_portrait": [psnr(still, clip) for clip in clips],
        "mouth_psnr_of_the_still_portrait": [psnr(mouth(still), mouth(clip)) for clip in clips],
        "mouth_psnr_own_sound": [psnr(mouth(ours), mouth(clip)) for ours, clip in zip(generated, clips)],
        "mouth_psnr_other_sound": [psnr(mouth(ours), mouth(clip)) for ours, clip in zip(generated, clips[::-1])],
        "mouth_psnr_of_the_two_clips": psnr(mouth(clips[0]), mouth(clips[1])),
    }
    report["loss_fell"] = report["loss_before"] / report["loss_after"]
    picture(out / "frames.png", [clips[0], generated[0], clips[1], generated[1]])
    own, other = report["mouth_psnr_own_sound"], report["mouth_psnr_other_sound"]
    follows = all(mine > yours + 1 for mine, yours in zip(own, other))
    report["passed"] = bool(report["loss_fell"] >= 20 and min(report["psnr"]) >= 28 and follows)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
