#!/usr/bin/env python
"""Train a tiny sonic-base for three steps in MindSpore and in torch, from the same weights, and compare.

    python -m bench.check_train_step [--json OUT] [--levels 2] [--sync]

Weights, batches, noise and noise levels are the same. Compared: the loss of the first step (bar 1e-5), the gradient of
every tensor (relative L2, bar 1e-3), and every tensor after three AdamW steps with clipping (largest difference, bar
1e-5). The torch side is diffusers' UNet with Sonic's audio branch, EDM's loss written with the denoised latents, and
torch.optim.AdamW. With --sync the loss has the lip-sync term too: in torch by diffusers' temporal decoder and the
expert as a function of its weights, in double precision. Exit code 0 if all are within their bars, 1 otherwise. Needs
torch and diffusers.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils import parametrize

ROOT = Path(__file__).resolve().parents[1]

from tests.support.torch_reference import AudioProcessor, SonicUNet, shuffle, sync_loss, tiny_vae  # noqa: E402

LOSS_BAR, GRADIENT_BAR, WEIGHT_BAR = 1e-5, 1e-3, 1e-5
STEPS, RATE, DECAY, EPSILON, CLIP = 3, 1e-5, 1e-2, 1e-8, 1.0
CLIPS, FRAMES, HEIGHT, WIDTH, CROSS, CHANNELS = 2, 3, 6, 10, 24, 8  # sizes unlike one another; latents of 6 x 10
SCALING, BUCKET_WEIGHT = 0.18215, 0.1
SYNC_WEIGHT, SYNC_FRAMES = 3.0, 2  # heavy, so that the term counts in every gradient; pictures the expert sees
# levels -> channels, heads. Above 32 channels: with one channel a group, a norm removes every offset before it, and
# the gradient of that offset is nothing but rounding.
SIZES = {1: ((64,), (2,)), 2: ((64, 96), (1, 2))}


class BlendWeight(torch.nn.Module):
    """Lets torch train 1 - sigmoid(mix_factor), which is what our Cells hold, in the place of mix_factor."""

    def forward(self, weight):
        return torch.log((1 - weight) / weight)

    def right_inverse(self, mix_factor):
        return torch.sigmoid(-mix_factor)


class Adapter(torch.nn.Module):
    """Either of Sonic's audio networks, with upstream's names."""

    def __init__(self, inputs, hidden, tokens, outputs, bucket):
        super().__init__()
        self.proj1, self.proj2 = torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, hidden)
        self.proj3 = torch.nn.Linear(hidden, tokens * outputs)
        self.tokens, self.bucket = tokens, bucket
        if not bucket:
            self.norm = torch.nn.LayerNorm(outputs)

    def forward(self, states, clip=None):
        x = states.flatten(1)
        if self.bucket:
            act = torch.nn.functional.silu
            return self.proj3(act(self.proj2(act(self.proj1(torch.cat([x, clip], 1))))))
        x = self.proj3(torch.relu(self.proj2(torch.relu(self.proj1(x)))))
        return self.norm(x.unflatten(1, (self.tokens, -1)))


class Reference:
    """The torch side: networks, loss and optimizer."""

    def __init__(self, levels, sync):
        channels, heads = SIZES[levels]
        self.expert = make_expert() if sync else None
        if sync:
            self.vae = tiny_vae().requires_grad_(False)
            self.vae_state = {name: tensor.clone() for name, tensor in self.vae.state_dict().items()}
            self.vae.double()
        self.unet = SonicUNet(channels, heads, cross=CROSS, frames=FRAMES, scale=0.7)
        self.audio2token = shuffle(Adapter(10 * 5 * CHANNELS, 16, 32, CROSS, False), seed=1)
        self.audio2bucket = shuffle(Adapter(50 * CHANNELS + CROSS, 16, 1, 2, True), seed=2)
        self.states = {"unet": self.unet.state_dict(), **{n: m.state_dict() for n, m in self.others().items()}}
        self.states = {name: {k: v.clone() for k, v in state.items()} for name, state in self.states.items()}
        for module in list(self.unet.model.modules()):
            if "mix_factor" in dict(module.named_parameters(recurse=False)):
                parametrize.register_parametrization(module, "mix_factor", BlendWeight())
        self.optimizer = torch.optim.AdamW(self.parameters().values(), RATE, eps=EPSILON, weight_decay=DECAY)

    def others(self):
        return {"audio2token": self.audio2token, "audio2bucket": self.audio2bucket}

    def parameters(self):
        """{"network:name": Parameter} with upstream's names."""
        found = {}
        for network, module in {"unet": self.unet.model, **self.others()}.items():
            for name, parameter in module.named_parameters():
                found[f"{network}:{name.replace('parametrizations.mix_factor.original', 'mix_factor')}"] = parameter
        return found

    def loss(self, clips, drawn, noise_config, windows):
        """EDM's loss as published: the error of the denoised latents, weighted by (sigma^2 + 1) / sigma^2."""
        clips = {name: torch.from_numpy(value).double() for name, value in clips.items()}
        drawn = {name: torch.from_numpy(value).double() for name, value in vars(drawn).items()}
        b, t = clips["latents"].shape[:2]
        clean = SCALING * clips["latents"]
        sigma = drawn["sigma"].reshape(b, 1, 1, 1, 1)
        noisy = clean + sigma * drawn["noise"]
        image = clips["image_latents"] * drawn["keep_image"].reshape(b, 1, 1, 1)
        sample = torch.cat([noisy / (sigma**2 + 1) ** 0.5, image[:, None].expand(-1, t, -1, -1, -1)], 2)
        buckets = clips["buckets"] * drawn["bucket_factor"][:, None]
        ids = torch.cat([torch.full((b, 1), 12.5).double(), buckets], 1).float()
        seen = (clips["clip_embedding"] * drawn["keep_image"][:, None])[:, None].repeat_interleave(t, 0).float()
        states = (clips["token_states"] * drawn["keep_audio"].reshape(b, 1, 1, 1, 1)).flatten(0, 1).float()
        audio = self.audio2token(states)
        masks = clips["mask"][:, None].float()

        def mask(tokens):
            level = 0
            while (HEIGHT >> level) * (WIDTH >> level) != tokens:
                level += 1
            size = (HEIGHT >> level, WIDTH >> level)
            small = torch.nn.functional.interpolate(masks, size=size, mode="bicubic", align_corners=False)
            return small.flatten(2).transpose(1, 2).repeat_interleave(t, 0)  # (b*t, tokens, 1)

        for name, module in self.unet.model.named_modules():
            if isinstance(module, AudioProcessor):
                if "temporal_transformer_blocks" in name:
                    module.give(seen.unflatten(0, (b, t)).mean(1), audio.unflatten(0, (b, t)).mean(1), None)
                else:
                    module.give(seen, audio, mask)
        times = (0.25 * torch.log(drawn["sigma"])).float()
        v = self.unet.model(sample.float(), times, seen[::t], ids, return_dict=False)[0].double()
        denoised = noisy / (sigma**2 + 1) - sigma / (sigma**2 + 1) ** 0.5 * v
        face = mask(HEIGHT * WIDTH)[::t].transpose(1, 2).reshape(b, 1, 1, HEIGHT, WIDTH).double()
        weight = (1 + noise_config.face_weight * face) * (sigma**2 + 1) / sigma**2
        loss = (weight * (denoised - clean) ** 2).mean()
        if self.expert:
            state = {name: torch.from_numpy(p.asnumpy()).double() for name, p in self.expert.parameters_and_names()}
            matrices = [tuple(torch.from_numpy(matrix).double() for matrix in pair) for pair in windows["matrices"]]
            mel, counts = (torch.from_numpy(windows[name]).double() for name in ("mel", "counts"))
            level, firsts = drawn["sigma"], windows["firsts"]
            term = sync_loss(self.vae, state, v, noisy, level, firsts, SYNC_FRAMES, matrices, mel, counts)
            loss = loss + SYNC_WEIGHT * term
        guess = self.audio2bucket(
            clips["bucket_states"].flatten(0, 1).float(), clips["clip_embedding"].float().repeat_interleave(t, 0)
        )
        target = ((clips["buckets"] - 16) / 16).repeat_interleave(t, 0)
        return loss + BUCKET_WEIGHT * ((guess.double() - target) ** 2).mean()

    def step(self, *batch):
        """One AdamW step with clipping; returns (loss, {name: gradient})."""
        self.optimizer.zero_grad()
        loss = self.loss(*batch)
        loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in self.parameters().items()}
        torch.nn.utils.clip_grad_norm_(self.parameters().values(), CLIP)
        self.optimizer.step()
        return loss.item(), gradients


def make_expert():
    """SyncNet of random weights, no bias of which is zero and no norm the identity."""
    import mindspore as ms

    from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig

    rng, network = np.random.default_rng(3), SyncNet(SyncNetConfig(SYNC_FRAMES, (16, 24), 12))
    for name, parameter in network.parameters_and_names():
        parameter.requires_grad = False
        matrix = len(parameter.shape) > 1
        values = (np.prod(parameter.shape[1:]) ** -0.5 if matrix else 0.3) * rng.standard_normal(parameter.shape)
        parameter.set_data(ms.Tensor((values + (".norm" in name and name.endswith("weight"))).astype(np.float32)))
    network.scale.set_data(ms.Tensor(np.float32([4.0])))
    return network


def make_windows(rng, step):
    """What the lip-sync term is told of a batch: where its windows begin, crops of the mouths, sound, which clips count
    (in every third step one does not)."""
    from sonic_ms.train.syncnet.network import mouth_matrices

    boxes = [(2.0, 1.0, 17.0, 11.5), (4.0, -2.0, 22.0, 10.0)]  # in pictures of 12 x 20: the tiny VAE doubles the sides
    return {
        "firsts": (0, 1),
        "matrices": [mouth_matrices(box, 2 * HEIGHT, 2 * WIDTH) for box in boxes],
        "mel": rng.standard_normal((CLIPS, 1, 80, 8 * SYNC_FRAMES), np.float32),
        "counts": np.float32([step % 3 != 1, 1]),
    }


def make_batch(step):
    """(stacked clips, Draw, NoiseConfig, windows) of one step; every third clip lacks a condition, so that dropping
    counts."""
    from sonic_ms.train.base.diffusion import NoiseConfig, draw

    rng = np.random.default_rng([7, step])

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    clips = {
        "latents": 5 * normal(CLIPS, FRAMES, 4, HEIGHT, WIDTH),
        "image_latents": normal(CLIPS, 4, HEIGHT, WIDTH),
        "clip_embedding": normal(CLIPS, CROSS),
        "token_states": normal(CLIPS, FRAMES, 10, 5, CHANNELS),
        "bucket_states": normal(CLIPS, FRAMES, 50, 1, CHANNELS),
        "mask": (rng.random((CLIPS, 8 * HEIGHT, 8 * WIDTH)) > 0.5).astype(np.float32),
        "buckets": rng.uniform(10, 40, (CLIPS, 2)).astype(np.float32),
    }
    config = NoiseConfig(drop_audio=0.15, drop_image=0.15, drop_both=0.1)
    drawn = draw(rng, clips["latents"].shape, config)
    return clips, drawn, config, make_windows(rng, step)


class Ours:
    """The MindSpore side: the same weights through the real converter, and the trainer's own step."""

    def __init__(self, reference, folder):
        from sonic_ms.convert import checkpoints

        from sonic_ms.files.weights import load_config, load_weights
        from sonic_ms.train.base.diffusion import SonicLoss
        from sonic_ms.train.loop.trainer import LoopConfig, Run
        from sonic_ms.train.syncnet.loss import SyncedLoss

        self.cells, self.jobs = {}, {}
        hints = {
            "unet": reference.unet.hints,
            "audio2token": {"seq_len": 10, "blocks": 5, "channels": CHANNELS},
            "audio2bucket": {"seq_len": 50, "blocks": 1, "channels": CHANNELS, "clip_channels": CROSS},
        }
        for name, state in reference.states.items():
            source = folder / f"{name}.pth"
            torch.save({key: value.contiguous() for key, value in state.items()}, source)
            source.with_suffix(".json").write_text(json.dumps(hints[name]))
            (job,), _ = checkpoints.plan(source)
            checkpoints.convert([job], folder)
            config = load_config(type(job.config), folder / job.family.name)
            self.cells[name], self.jobs[name] = load_weights(job.family.cell(config), folder / job.family.name), job
        self.config = self.jobs["unet"].config
        arguments = (self.config, *self.cells.values(), FRAMES, BUCKET_WEIGHT)
        self.sync = bool(reference.expert)
        loss = SonicLoss(*arguments)
        if self.sync:
            loss = SyncedLoss(self.term(reference, folder), SYNC_WEIGHT, *arguments)
        loop = LoopConfig(
            STEPS, CLIPS, RATE, warmup=0, schedule="constant", weight_decay=DECAY, epsilon=EPSILON, clip_norm=CLIP
        )
        from sonic_ms.train.loop.distributed import Group

        self.run = Run(loss, None, loop, folder, None, {}, Group())

    @staticmethod
    def term(reference, folder):
        """SyncTerm of the reference's expert, and of its VAE through the converter."""
        from sonic_ms.convert import checkpoints

        from sonic_ms.base.configs import VAEConfig
        from sonic_ms.base.vae import Decoder
        from sonic_ms.files.weights import load_config, load_weights
        from sonic_ms.train.syncnet.loss import SyncTerm

        source = folder / "upstream" / "weights.pth"
        source.parent.mkdir()
        torch.save(reference.vae_state, source)
        (job,), _ = checkpoints.plan(source.parent)
        checkpoints.convert([job], folder)
        config = load_config(VAEConfig, folder / "vae")
        decoder = load_weights(Decoder(config), folder / "vae", prefix="decoder.")
        for parameter in decoder.get_parameters():
            parameter.requires_grad = False
        return SyncTerm(decoder, config.scaling_factor, reference.expert, SYNC_FRAMES)

    def inputs(self, step):
        """Arrays that the loss takes."""
        from sonic_ms.train.base.diffusion import network_inputs

        clips, drawn, config, windows = make_batch(step)
        arrays = network_inputs(self.config, SCALING, clips, drawn, config)
        if not self.sync:
            return arrays
        firsts = enumerate(windows["firsts"])
        index = np.concatenate([i * FRAMES + first + np.arange(SYNC_FRAMES) for i, first in firsts])
        rows, columns = (np.stack(part) for part in zip(*windows["matrices"]))
        sigma = drawn.sigma.reshape(-1, 1, 1, 1, 1)
        return *arrays, index.astype(np.int32), sigma, rows, columns, windows["mel"], windows["counts"]

    def first(self):
        """(loss, {"network:name": gradient}) of the first batch; no step is taken."""
        import mindspore as ms

        loss = self.run.accumulate(ms.Tensor(np.float32(1.0)), *(ms.Tensor(array) for array in self.inputs(0)))
        gradients = {slot.name: slot.total.asnumpy().copy() for slot in self.run.states.slots}
        self.run.states.clear()
        return float(loss.asnumpy()), self._named(gradients)

    def train(self):
        """Take the three steps; {"network:name": weight}."""
        for step in range(STEPS):
            self.run.make_batch = lambda rng, size, step=step: self.inputs(step)
            self.run._step(step)
        return self._named({slot.name: slot.master.asnumpy() for slot in self.run.states.slots})

    @staticmethod
    def _named(values):
        """ "unet.denoiser.conv_in.weight" -> "unet:denoiser.conv_in.weight"."""
        return {name.replace(".", ":", 1): value for name, value in values.items()}

    def counterpart(self, name, values):
        """torch's tensor `name` as ours: (our name, array); (None, array) for one we have no use for."""
        network, tensor = name.split(":")
        job = self.jobs[network]
        for target, (source, transform) in job.targets.items():
            if source == tensor:
                kept = tensor.endswith("mix_factor")  # torch trains the blend weight itself here
                return f"{network}:{target}", values if kept else transform.apply(values)
        return None, values


def distance(ours, theirs):
    """Relative L2; infinite where shapes or finiteness differ."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return np.inf
    difference = np.linalg.norm(ours.astype(np.float64) - theirs)
    return float(difference / max(np.linalg.norm(theirs.astype(np.float64)), 1e-30))


def check(levels, folder, sync):
    """Rows (dicts of what, name, value, bar, ok) of the whole comparison."""
    torch.manual_seed(0)
    reference = Reference(levels, sync)
    ours = Ours(reference, Path(folder))
    their_loss, their_gradients = reference.step(*make_batch(0))
    our_loss, our_gradients = ours.first()
    rows = [("loss", f"{our_loss:.7f} {their_loss:.7f}", abs(our_loss - their_loss), LOSS_BAR)]
    largest = max(float(gradient.norm()) for gradient in their_gradients.values())
    used = set()
    for name, gradient in their_gradients.items():
        target, expected = ours.counterpart(name, gradient.numpy())
        if target is None:  # the key of the single CLIP token: it has no effect, so torch must find no gradient
            rows.append(("gradient", f"{name} (unused)", float(np.linalg.norm(expected)) / largest, GRADIENT_BAR))
        else:
            rows.append(("gradient", target, distance(our_gradients[target], expected), GRADIENT_BAR))
            used.add(target)
    rows += [("gradient", f"{name} (torch has none)", np.inf, GRADIENT_BAR) for name in set(our_gradients) - used]
    for step in range(1, STEPS):
        reference.step(*make_batch(step))
    our_weights = ours.train()
    for name, parameter in reference.parameters().items():
        target, expected = ours.counterpart(name, parameter.detach().numpy())
        if target is not None:
            rows.append(("weight", target, float(np.abs(our_weights[target] - expected).max()), WEIGHT_BAR))
    return [{"what": w, "name": n, "value": float(v), "bar": bar, "ok": bool(v <= bar)} for w, n, v, bar in rows]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--levels", type=int, choices=sorted(SIZES), default=2, help="of the tiny UNet (default: 2)")
    parser.add_argument("--sync", action="store_true", help="add the lip-sync term to the loss")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write the table as JSON")
    options = parser.parse_args(arguments)
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    with tempfile.TemporaryDirectory() as folder:
        rows = check(options.levels, folder, options.sync)
    for row in rows:
        verdict = "ok" if row["ok"] else "FAILED"
        print(f"{row['what']:9}{row['name']:75}{row['value']:10.2e}{row['bar']:9.0e}  {verdict}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    failed = sum(not row["ok"] for row in rows)
    worst = {what: max(row["value"] for row in rows if row["what"] == what) for what in ("loss", "gradient", "weight")}
    print(", ".join(f"worst {what} {value:.1e}" for what, value in worst.items()))
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
