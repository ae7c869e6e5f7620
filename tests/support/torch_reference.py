"""torch references: tiny upstream networks, and what Sonic adds to them, written from its description.

Where the public library has the network (diffusers, transformers) it is used; the rest is functions of a state dict.
"""

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

MANIFESTS = Path(__file__).resolve().parents[2] / "convert" / "manifests"


def shuffle(module, seed=0, size=0.3):
    """Replace every weight by a random one, so that no bias is zero and no norm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = noise / parameter[0].numel() ** 0.5
        else:
            parameter.data = size * noise + (1.0 if name.endswith("weight") else 0.0)
    return module.eval()


class AudioProcessor(torch.nn.Module):
    """Cross-attention to the CLIP token and to the audio tokens; the contexts are given by `give`, not by the model."""

    def __init__(self, channels, cross, scale):
        super().__init__()
        self.to_k_ip = torch.nn.ModuleList([torch.nn.Linear(cross, channels, bias=False)])
        self.to_v_ip = torch.nn.ModuleList([torch.nn.Linear(cross, channels, bias=False)])
        self.scale = scale

    def give(self, clip, audio, mask):
        self.clip, self.audio, self.mask = clip, audio, mask

    def forward(self, attn, hidden_states, encoder_hidden_states=None, **_):
        def heads(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        repeats = len(hidden_states) // len(self.clip)  # temporal blocks: one context for all pixels of a clip
        clip, audio = (x.repeat_interleave(repeats, 0) for x in (self.clip, self.audio))
        query = heads(attn.to_q(hidden_states))
        seen = F.scaled_dot_product_attention(query, heads(attn.to_k(clip)), heads(attn.to_v(clip)))
        key, value = heads(self.to_k_ip[0](audio)), heads(self.to_v_ip[0](audio))
        heard = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        if self.mask is not None:
            heard = heard * self.mask(hidden_states.shape[1])
        return attn.to_out[0](seen.transpose(1, 2).flatten(2) + self.scale * heard)


class SonicUNet:
    """A UNet of diffusers with Sonic's processors; tiny by default. random=False: weights as they are made;
    audio=False: with the processors of diffusers."""

    def __init__(
        self,
        channels=(32, 64),
        heads=(1, 2),
        cross=24,
        layers=1,
        scale=1.0,
        frames=3,
        id_width=16,
        random=True,
        audio=True,
    ):
        crossed = len(channels) - 1
        self.model = UNetSpatioTemporalConditionModel(
            down_block_types=(*["CrossAttnDownBlockSpatioTemporal"] * crossed, "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", *["CrossAttnUpBlockSpatioTemporal"] * crossed),
            block_out_channels=channels,
            num_attention_heads=heads,
            cross_attention_dim=cross,
            addition_time_embed_dim=id_width,
            projection_class_embeddings_input_dim=3 * id_width,
            layers_per_block=layers,
            num_frames=frames,
        )
        self.hints = {"num_attention_heads": list(heads), "num_frames": frames, "ip_audio_scale": scale}
        for name, module in self.model.named_modules():
            if audio and name.endswith("attn2"):
                module.processor = AudioProcessor(module.to_q.out_features, cross, scale)
        if random:
            shuffle(self.model)

    def state_dict(self):
        return self.model.state_dict()

    @torch.no_grad()
    def __call__(self, sample, timestep, clip, audio, face_mask, ids):
        """sample (b, t, 8, h, w); clip (b*t, 1, d), audio (b*t, 32, d), face_mask (H, W) -> (b, t, 4, h, w)"""
        b, t, _, height, width = sample.shape

        def mask(tokens):
            level = 0
            while (height >> level) * (width >> level) != tokens:
                level += 1
            size = (height >> level, width >> level)
            small = F.interpolate(face_mask[None, None], size=size, mode="bicubic", align_corners=False)
            return small.reshape(1, -1, 1)

        for name, module in self.model.named_modules():
            if isinstance(module, AudioProcessor):
                if "temporal_transformer_blocks" in name:
                    module.give(clip.unflatten(0, (b, t)).mean(1), audio.unflatten(0, (b, t)).mean(1), None)
                else:
                    module.give(clip, audio, mask)
        return self.model(sample, timestep, clip[::t], ids, return_dict=False)[0]


def tiny_vae():
    """Two levels, one layer; sizes unlike one another."""
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2, layers_per_block=2
    )
    return shuffle(vae)


def syncnet_tower(state, name, x):
    """One tower of our SyncNet as a function of its state dict, with our names: (n, c, h, w) -> (n, embedding)."""

    def norm(x, part):
        return F.group_norm(x, 8, state[f"{part}.weight"], state[f"{part}.bias"], 1e-5)

    def conv(x, part, stride):
        return F.conv2d(x, state[f"{part}.weight"], state[f"{part}.bias"], stride, 1)

    level = 0
    while f"{name}.levels.{level}.down.weight" in state:
        part = f"{name}.levels.{level}"
        x = F.relu(norm(conv(x, f"{part}.down", 2), f"{part}.norm1"))
        x = F.relu(x + norm(conv(x, f"{part}.conv", 1), f"{part}.norm2"))
        level += 1
    return F.normalize(F.linear(x.flatten(1), state[f"{name}.head.weight"], state[f"{name}.head.bias"]))


def sync_loss(vae, state, v, noisy, sigma, firsts, frames, matrices, mel, counts):
    """The lip-sync term of sonic-base's loss for a v-prediction, as a function of the expert's state dict.

    v, noisy (b, t, 4, h, w), noisy = clean + sigma * noise; sigma (b,); firsts (b,): where the window of `frames` of
    each clip begins; matrices: (rows, columns) that crop its mouth; mel (b, 1, 80, 8*frames); counts (b,).
    """
    total = 0
    for i, (first, (rows, columns)) in enumerate(zip(firsts, matrices)):
        # v = (noise - sigma * clean) / root, solved for the clean latents
        root = (sigma[i] ** 2 + 1) ** 0.5
        clean = ((noisy[i] - sigma[i] * root * v[i]) / root**2)[first : first + frames]
        pictures = vae.decode(clean / vae.config.scaling_factor, num_frames=frames).sample
        mouths = torch.einsum("rh,kchw,wx->kcrx", rows, pictures, columns).flatten(0, 1)
        mouth, sound = syncnet_tower(state, "mouth", mouths[None]), syncnet_tower(state, "sound", mel[i : i + 1])
        logit = state["scale"] * (mouth * sound).sum() + state["bias"]
        total = total + counts[i] * F.softplus(-logit).squeeze() / len(v)
    return total


def random_state(network, sizes, drop=None, seed=0):
    """State dict with the names of a published network; `sizes` maps published sizes to tiny ones."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in json.loads((MANIFESTS / f"{network}.json").read_text())["tensors"].items():
        if drop and re.match(drop, name):
            continue
        outputs = shape[:1] if name.startswith("model.23.") else []  # the detector's 48 outputs stay
        shape = outputs + [sizes.get(side, side) for side in shape[len(outputs) :]]
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
        elif name.endswith("running_var"):
            state[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            noise = torch.randn(shape, generator=generator)
            scale = noise[0].numel() ** 0.5 if len(shape) > 1 else 4.0
            state[name] = noise / scale + (1.0 if name.endswith("bn.weight") else 0.0)
    return state


def rife(state, first, second, scales):
    """IFNet HDv3 as functions of its state dict: (flow, mask, middle frame)."""

    def conv(x, name, stride=1):
        x = F.conv2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], stride, 1)
        return F.prelu(x, state[f"{name}.1.weight"])

    def head(x, name):
        x = F.conv_transpose2d(x, state[f"{name}.0.weight"], state[f"{name}.0.bias"], 2, 1)
        x = F.prelu(x, state[f"{name}.1.weight"])
        return F.conv_transpose2d(x, state[f"{name}.2.weight"], state[f"{name}.2.bias"], 2, 1)

    def zoom(x, factor):
        return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)

    def block(index, images, flow, scale):
        name = f"module.block{index}"
        x = torch.cat([zoom(images, 1 / scale), zoom(flow, 1 / scale) / scale], 1)
        x = conv(conv(x, f"{name}.conv0.0", 2), f"{name}.conv0.1", 2)
        for pair in range(4):
            x = x + conv(conv(x, f"{name}.convblock{pair}.0"), f"{name}.convblock{pair}.1")
        return zoom(head(x, f"{name}.conv1"), scale) * scale, zoom(head(x, f"{name}.conv2"), scale)

    def warp(image, flow):
        _, _, h, w = image.shape
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([(x + flow[0, 0]) * 2 / (w - 1) - 1, (y + flow[0, 1]) * 2 / (h - 1) - 1], -1)[None]
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)

    flow, mask = torch.zeros_like(first[:, :1]).repeat(1, 4, 1, 1), torch.zeros_like(first[:, :1])
    one, two = first, second
    for index, scale in enumerate(scales):
        flow_there, mask_there = block(index, torch.cat([one, two, mask], 1), flow, scale)
        swapped = torch.cat([flow[:, 2:], flow[:, :2]], 1)
        flow_back, mask_back = block(index, torch.cat([two, one, -mask], 1), swapped, scale)
        flow = flow + (flow_there + torch.cat([flow_back[:, 2:], flow_back[:, :2]], 1)) / 2
        mask = mask + (mask_there - mask_back) / 2
        one, two = warp(first, flow[:, :2]), warp(second, flow[:, 2:])
    mask = torch.sigmoid(mask)
    return flow, mask, one * mask + two * (1 - mask)


def yoloface(state, x, anchors, strides):
    """YOLOv5-face as functions of its state dict: decoded predictions (1, n, 16)."""

    def conv(x, name, stride=1):
        name = f"model.{name}"
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2)
        norm = [state[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.silu(F.batch_norm(x, *norm, eps=1e-3))

    def c3(x, index, shortcut):
        y, block = conv(x, f"{index}.cv1"), 0
        while f"model.{index}.m.{block}.cv1.conv.weight" in state:
            z = conv(conv(y, f"{index}.m.{block}.cv1"), f"{index}.m.{block}.cv2")
            y, block = (y + z if shortcut else z), block + 1
        return conv(torch.cat([y, conv(x, f"{index}.cv2")], 1), f"{index}.cv3")

    def double(x):
        return F.interpolate(x, scale_factor=2.0, mode="nearest")

    stem = conv(x, "0.stem_1", 2)
    side = conv(conv(stem, "0.stem_2a"), "0.stem_2b", 2)
    x = conv(torch.cat([side, F.max_pool2d(stem, 2, 2)], 1), "0.stem_3")
    eighth = c3(conv(c3(x, 1, True), "2", 2), 3, True)
    sixteenth = c3(conv(eighth, "4", 2), 5, True)
    x = conv(conv(sixteenth, "6", 2), "7.cv1")
    x = conv(torch.cat([x, *[F.max_pool2d(x, k, 1, k // 2) for k in (3, 5, 7)]], 1), "7.cv2")
    deep = conv(c3(x, 8, False), "9")
    middle = conv(c3(torch.cat([double(deep), sixteenth], 1), 12, False), "13")
    fine = c3(torch.cat([double(middle), eighth], 1), 16, False)
    coarse = c3(torch.cat([conv(fine, "17", 2), middle], 1), 19, False)
    last = c3(torch.cat([conv(coarse, "20", 2), deep], 1), 22, False)
    out = []
    for index, (x, sizes, stride) in enumerate(zip((fine, coarse, last), anchors, strides)):
        x = F.conv2d(x, state[f"model.23.m.{index}.weight"], state[f"model.23.m.{index}.bias"])
        _, _, h, w = x.shape
        x = x.reshape(1, 3, 16, h, w).permute(0, 1, 3, 4, 2)
        y, cell = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        cell, size = torch.stack([cell, y], -1), torch.tensor(sizes).reshape(1, 3, 1, 1, 2)
        centre = (x[..., :2].sigmoid() * 2 - 0.5 + cell) * stride
        points = x[..., 5:15] * size.repeat(1, 1, 1, 1, 5) + (cell * stride).repeat(1, 1, 5)
        box = (x[..., 2:4].sigmoid() * 2) ** 2 * size
        parts = [centre, box, x[..., 4:5].sigmoid(), points, x[..., 15:].sigmoid()]
        out.append(torch.cat(parts, -1).reshape(1, -1, 16))
    return torch.cat(out, 1)
