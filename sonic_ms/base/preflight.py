"""Whether a request of sonic-base fits this machine, before the work starts: memory and seconds from its shape.

Operations are counted from the configs. How fast this machine does them is measured by a probe of some seconds: one
residual block and one transformer of every level of the UNet, at the request's own resolution. The constants of memory
fit what was measured at 256x256 with four frames and 384x384 with six; at larger sizes they have not been measured.
Time is for information, only memory refuses a request. bench/check_preflight.py compares both with real runs.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sonic_ms.base.guidance import Work
from sonic_ms.errors import ResourceError
from sonic_ms.runtime.turns import in_turn

GB = 1e9
# Measured on MindSpore 2.7.2, CPU, see docs/measured/base.md. Bytes that a compiled transformer with its residual block
# keeps, what the interpreter and MindSpore take, and what kernels keep of the weights beside them (packed forms).
COMPILED_BYTES, START_BYTES, PACKED_SHARE = 100e6, 420e6, 0.09
# Activations that are alive at the peak, in tensors of the finest level: (b * t, c0, h, w) of the UNet, and of the
# decoder at the full size of the picture.
UNET_TENSORS, DECODER_TENSORS = 190, 11
# Of each level. In its first 20 runs a graph tries how many threads suit its element-wise kernels, beginning with one.
PROBE_RUNS, PROBE_SECONDS = 23, 5
# Multiplications of a request above which its time is predicted: about ten minutes of two desktop cores.
WORTH_A_PROBE = 5e13


@dataclass(frozen=True)
class Request:
    """Shape of a request: picture in pixels, generated frames, denoising steps, the loop's windows, branches at once,
    frames decoded together, bytes of a number. work: guidance.Work, None for all branches at every step. cache_branch:
    of the feature cache, None without one."""

    height: int
    width: int
    frames: int
    steps: int
    overlap: int = 0
    branches: int = 3
    chunk: int = 8
    itemsize: int = 4
    work: Work | None = None
    cache_branch: int | None = None

    @property
    def planned(self):
        """guidance.Work of all steps."""
        return self.work or Work(3 * self.steps, 0, 1, 0)

    def windows(self, config):
        """Windows of one step."""
        return -(-self.frames // (config.num_frames - self.overlap))


@dataclass(frozen=True)
class Estimate:
    """seconds of denoising and decoding without compilation, None where not measured; gigabytes at the peak of the
    process."""

    seconds: float | None
    gigabytes: float

    def __str__(self):
        parts = [f"{self.gigabytes:.1f} GB of memory"]
        if self.seconds is not None:
            minutes = max(1, round(self.seconds / 60))
            parts.insert(0, f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} hours")
        return f"this will take about {' and '.join(parts)}"


def res_operations(channels_in, channels, pixels, frames):
    """Multiplications of a spatio-temporal residual block over `frames` frames of `pixels`."""
    shortcut = channels_in * channels if channels_in != channels else 0
    spatial = 9 * channels_in * channels + 9 * channels * channels + shortcut
    return (spatial + 6 * channels * channels) * pixels * frames


def transformer_operations(channels, pixels, frames, window, tokens):
    """Multiplications of a spatio-temporal transformer."""
    dense = 50 * channels * channels
    attention = 2 * channels * (pixels + window + 2 * tokens)
    return (dense + attention) * pixels * frames


def unet_blocks(config):
    """[(level, channels in, channels, has a transformer)] of every residual block, in the order they run."""
    channels, layers, last = config.block_out_channels, config.layers_per_block, config.levels - 1
    blocks, skips, before = [], [channels[0]], channels[0]
    for level, size in enumerate(channels):
        for layer in range(layers):
            blocks.append((level, before if layer == 0 else size, size, level != last))
        skips += [size] * layers + ([size] if level != last else [])
        before = size
    blocks += [(last, before, before, True), (last, before, before, False)]
    for level in reversed(range(config.levels)):
        size = channels[level]
        for layer in range(layers + 1):
            blocks.append((level, (before if layer == 0 else size) + skips.pop(), size, level != last))
        before = size
    return blocks


def unet_operations(config, height, width, frames):
    """Multiplications of one denoising step of one branch, level by level; height and width of the latents."""
    totals = [0] * config.levels
    for level, channels_in, channels, attends in unet_blocks(config):
        pixels = (height >> level) * (width >> level)
        totals[level] += res_operations(channels_in, channels, pixels, frames)
        if attends:
            totals[level] += transformer_operations(channels, pixels, frames, frames, config.audio_context_tokens)
    for level, channels in enumerate(config.block_out_channels):  # down to the next level, up from this one
        down = (height >> level + 1) * (width >> level + 1) if level < config.levels - 1 else 0
        up = (height >> level - 1) * (width >> level - 1) if level else 0
        totals[level] += 9 * channels * channels * (down + up) * frames
    return totals


def shallow_operations(config, height, width, frames, branch):
    """Multiplications of a step of one branch that starts from kept features: all are of level 0."""
    blocks = unet_blocks(config)
    pixels, total = height * width, 0
    for _, channels_in, channels, _ in (*blocks[:branch], *blocks[-1 - branch :]):
        total += res_operations(channels_in, channels, pixels, frames)
        total += transformer_operations(channels, pixels, frames, frames, config.audio_context_tokens)
    return total


def kept_bytes(config, request, pixels):
    """Bytes of the features that a cache keeps of every frame and branch, in float16, and of one window's, in float32;
    pixels: of the latents."""
    if request.cache_branch is None:
        return 0
    each = config.feature_channels(request.cache_branch) * pixels
    return 2 * 3 * request.frames * each + 4 * request.branches * config.num_frames * each


def decoder_operations(config, height, width, frames):
    """Multiplications of decoding `frames` frames; height and width of the latents."""
    channels = tuple(reversed(config.block_out_channels))
    pixels, before = height * width, channels[0]
    total = config.layers_per_block * res_operations(before, before, pixels, frames)
    for level, size in enumerate(channels):
        for layer in range(config.layers_per_block + 1):
            total += res_operations(before if layer == 0 else size, size, pixels, frames)
        before = size
        if level < len(channels) - 1:
            pixels *= 4
            total += 9 * size * size * pixels * frames
    return total


def weight_bytes(folder):
    """Bytes of all weights of a model's folder."""
    return sum(path.stat().st_size for path in Path(folder).glob("*/model.safetensors"))


def decoder_live(vae, request):
    """Bytes of the decoder's activations at their peak."""
    chunk = min(request.chunk, request.frames)
    return DECODER_TENSORS * chunk * request.height * request.width * vae.block_out_channels[0] * request.itemsize


def memory(configs, request, weights):
    """Bytes at the peak. configs: of unet and vae; weights: bytes of the weight files."""
    from sonic_ms.base.unet import MAX_SCORES

    unet, vae = configs["unet"], configs["vae"]
    pixels = request.height * request.width // vae.downscale**2
    window = request.branches * unet.num_frames
    blocks = sum(attends for _, _, _, attends in unet_blocks(unet))
    live = UNET_TENSORS * window * pixels * unet.block_out_channels[0] * request.itemsize
    scores = min(MAX_SCORES, window * unet.num_attention_heads[0] * pixels**2)  # before and after the softmax
    live = max(live + 2 * 4 * scores, decoder_live(vae, request))
    # A graph for every size of batch; that they share no more than the weights was not measured.
    work, branch = request.planned, request.cache_branch or 0
    graphs = blocks * work.whole_batches + (2 * branch + 1) * work.shallow_batches
    packed = PACKED_SHARE * work.whole_batches
    return START_BYTES + weights * (1 + packed) + COMPILED_BYTES * graphs + live + kept_bytes(unet, request, pixels)


def probe(config, height, width, frames=4):
    """Multiplications a second of this machine on each level of the UNet; height and width of the latents."""
    sizes = [(max(1, height >> level), max(1, width >> level)) for level in range(config.levels)]
    return [probe_level(config, level, *size, frames) for level, size in enumerate(sizes)]


@in_turn
def probe_level(config, level, height, width, frames):
    """The speed of one level: a residual block and, where the level has them, a transformer."""
    import mindspore as ms
    from mindspore import nn

    from sonic_ms.base.resnet import SpatioTemporalResBlock
    from sonic_ms.base.unet import MAX_SCORES, Transformer
    from sonic_ms.runtime.ms import start

    start()
    c, tokens, attends = config.block_out_channels[level], config.audio_context_tokens, level < config.levels - 1

    class Probe(nn.Cell):
        def __init__(self):
            super().__init__()
            self.resnet = SpatioTemporalResBlock(c, c, c, 1e-6, 1e-6)
            self.attention = Transformer(c, config.num_attention_heads[level], MAX_SCORES) if attends else None

        def construct(self, x, embedding, key, value, clip, mask, positions):
            x = self.resnet(x, embedding, frames)
            if self.attention is None:
                return x
            contexts = (key, value, clip, key[:1], value[:1], clip[:1])
            return self.attention(x, contexts, mask, positions, frames)

    rng = np.random.default_rng(0)
    shapes = ((frames, c, height, width), (1, c), (frames, tokens, c), (frames, tokens, c), (frames, 1, c),
              (1, height * width, 1), (frames, c))  # fmt: skip
    inputs = [ms.Tensor(rng.standard_normal(shape, np.float32)) for shape in shapes]
    cell = Probe().set_train(False)
    cell(*inputs).asnumpy()
    seconds = []
    deadline = time.perf_counter() + PROBE_SECONDS
    while len(seconds) < PROBE_RUNS and (len(seconds) < 3 or time.perf_counter() < deadline):
        started = time.perf_counter()
        cell(*inputs).asnumpy()
        seconds.append(time.perf_counter() - started)
    work = res_operations(c, c, height * width, frames)
    if attends:
        work += transformer_operations(c, height * width, frames, frames, tokens)
    return work / float(np.median(seconds[-3:]))


def operations(configs, request):
    """Multiplications of all denoising steps."""
    unet, downscale = configs["unet"], configs["vae"].downscale
    size = request.height // downscale, request.width // downscale
    whole = request.planned.whole * sum(unet_operations(unet, *size, unet.num_frames))
    return request.windows(unet) * (whole + _shallow_operations(unet, request, *size))


def _shallow_operations(unet, request, height, width):
    """Multiplications of the steps of one window that start from kept features."""
    if request.cache_branch is None:
        return 0
    each = shallow_operations(unet, height, width, unet.num_frames, request.cache_branch)
    return request.planned.shallow * each


def step_seconds(config, height, width, frames, speeds):
    """Seconds of one denoising step of one window and one branch; height and width of the latents."""
    return sum(work / speed for work, speed in zip(unet_operations(config, height, width, frames), speeds))


def estimate(configs, request, weights, speeds):
    """Estimate of a request. configs: of unet and vae; weights: their bytes; speeds: of `probe`."""
    unet, vae = configs["unet"], configs["vae"]
    height, width = request.height // vae.downscale, request.width // vae.downscale
    whole = request.planned.whole * step_seconds(unet, height, width, unet.num_frames, speeds)
    denoising = request.windows(unet) * (whole + _shallow_operations(unet, request, height, width) / speeds[0])
    decoding = decoder_operations(vae, height, width, request.frames) / speeds[0]
    return Estimate(denoising + decoding, memory(configs, request, weights) / GB)


def preflight(configs, request, weights, timed=True):
    """Estimate of a request that fits; ResourceError for one that does not.

    timed: probe the speed too, which takes half a minute at the published sizes. Short requests are not probed: they
    would be done before it.
    """
    needed = check_memory(configs, request, weights)
    if not timed or operations(configs, request) < WORTH_A_PROBE:
        return Estimate(None, needed)
    downscale = configs["vae"].downscale
    speeds = probe(configs["unet"], request.height // downscale, request.width // downscale)
    return estimate(configs, request, weights, speeds)


def available_gigabytes():
    """Memory that a new process may take on this machine (Linux)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 / GB


def check_memory(configs, request, weights, available=None):
    """Refuse a request that cannot fit: ResourceError that says what would. Returns the bytes it needs."""
    available = available_gigabytes() if available is None else available
    needed = memory(configs, request, weights) / GB
    if needed > available:
        if request.branches > 1:
            advice = "--one-branch-at-a-time"
        else:
            advice = "a smaller min_resolution" + (", or --precision fp16" if request.itemsize > 2 else "")
        raise ResourceError(
            f"{request.width}x{request.height} needs about {needed:.1f} GB of memory, {available:.1f} GB are free; "
            f"try {advice}"
        )
    return needed
