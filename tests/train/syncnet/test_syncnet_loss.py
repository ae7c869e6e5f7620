"""The lip-sync term of sonic-base's loss: against PyTorch, what of a batch it looks at, and what it leaves frozen."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sonic_ms.convert import checkpoints

from sonic_ms.base.cells import CELLS
from sonic_ms.base.check import SMALL, randomise
from sonic_ms.base.configs import VAEConfig
from sonic_ms.base.vae import Decoder
from sonic_ms.errors import UsageError
from sonic_ms.files.weights import load_config, load_weights, save_model
from sonic_ms.train.base import finetune as base
from sonic_ms.train.base import trained
from sonic_ms.train.base.clips import ClipBatches
from sonic_ms.train.base.diffusion import Draw, NoiseConfig
from sonic_ms.train.loop.distributed import Group
from sonic_ms.train.loop.optimizer import States
from sonic_ms.train.loop.trainer import LoopConfig
from sonic_ms.train.syncnet.loss import SyncConfig, SyncTerm, SyncWindows
from sonic_ms.train.syncnet.network import SyncNet, SyncNetConfig, mouth_matrices
from sonic_ms.train.syncnet.training import MouthClip, MouthWindows, clip_mel
from tests.support.torch_reference import sync_loss, tiny_vae

pytestmark = [pytest.mark.slow]

EXPERT = SyncNetConfig(frames=3, channels=(16, 24), embedding=12)
CLIPS, FRAMES, HEIGHT, WIDTH = 2, 5, 6, 10  # latents; the tiny VAE makes pictures of 12 x 20


def expert(seed=0):
    """SyncNet with no bias of zero and no norm that is the identity."""
    rng = np.random.default_rng(seed)
    network = SyncNet(EXPERT)
    for name, parameter in network.parameters_and_names():
        shape = parameter.shape
        size = 0.3 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
        middle = float(name.endswith("norm1.weight") or name.endswith("norm2.weight"))
        parameter.set_data(ms.Tensor((middle + size * rng.standard_normal(shape)).astype(np.float32)))
    network.scale.set_data(ms.Tensor(np.float32([4.0])))
    return network


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """(torch VAE, our Decoder of the same weights, VAEConfig, expert)."""
    theirs, folder = tiny_vae(), tmp_path_factory.mktemp("vae")
    (folder / "upstream").mkdir()
    torch.save(theirs.state_dict(), folder / "upstream" / "weights.pth")
    (job,), _ = checkpoints.plan(folder / "upstream")
    checkpoints.convert([job], folder)
    config = load_config(VAEConfig, folder / "vae")
    return theirs, load_weights(Decoder(config), folder / "vae", prefix="decoder."), config, expert()


def batch(seed=1):
    """Arrays of the term: v, latents, sigma, first frames of the windows, matrices, mel, counts."""
    rng = np.random.default_rng(seed)
    shape = (CLIPS, FRAMES, 4, HEIGHT, WIDTH)
    v, noisy = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)
    boxes = [(2.0, 1.0, 17.0, 11.5), (4.0, -2.0, 22.0, 10.0)]
    matrices = [mouth_matrices(box, 2 * HEIGHT, 2 * WIDTH) for box in boxes]
    mel = rng.standard_normal((CLIPS, 1, 80, 8 * EXPERT.frames), np.float32)
    return v, noisy, np.float32([0.4, 0.9]), (1, 2), matrices, mel, np.float32([1, 1])


def inputs(v, noisy, sigma, firsts, matrices, mel, counts):
    """The same as SyncTerm takes them; noisy is scaled to unit variance by it."""
    level = sigma.reshape(-1, 1, 1, 1, 1)
    index = np.concatenate([i * FRAMES + first + np.arange(EXPERT.frames) for i, first in enumerate(firsts)])
    rows, columns = (np.stack(part) for part in zip(*matrices))
    arrays = (v, noisy / np.sqrt(level**2 + 1), index.astype(np.int32), level, rows, columns, mel, counts)
    return [ms.Tensor(np.ascontiguousarray(array)) for array in arrays]


def torch_term(theirs, network, v, noisy, sigma, firsts, matrices, mel, counts):
    """(loss, its gradient by v) in double precision."""
    state = {name: torch.from_numpy(p.asnumpy()).double() for name, p in network.parameters_and_names()}
    v, noisy, sigma, mel, counts = (torch.from_numpy(array).double() for array in (v, noisy, sigma, mel, counts))
    v.requires_grad_()
    matrices = [tuple(torch.from_numpy(matrix).double() for matrix in pair) for pair in matrices]
    loss = sync_loss(theirs.double(), state, v, noisy, sigma, firsts, EXPERT.frames, matrices, mel, counts)
    loss.backward()
    return loss.item(), v.grad.numpy()


def test_loss_and_gradient_are_those_of_torch(networks):
    theirs, decoder, config, network = networks
    term = SyncTerm(decoder, config.scaling_factor, network, EXPERT.frames)
    arrays = batch()
    expected, slope = torch_term(theirs, network, *arrays)
    gradient = ms.value_and_grad(term, 0)
    loss, ours = gradient(*inputs(*arrays))
    assert abs(float(loss.asnumpy()) - expected) < 1e-5
    assert np.linalg.norm(ours.asnumpy() - slope) < 1e-3 * np.linalg.norm(slope)
    assert not ours.asnumpy()[0, [0, 4]].any() and not ours.asnumpy()[1, :2].any()  # outside the windows


def test_a_clip_that_does_not_count(networks):
    _, decoder, config, network = networks
    term = SyncTerm(decoder, config.scaling_factor, network, EXPERT.frames)
    gradient = ms.value_and_grad(term, 0)
    *arrays, _ = batch()
    both, _ = gradient(*inputs(*arrays, np.float32([1, 1])))
    one, slope = gradient(*inputs(*arrays, np.float32([0, 1])))
    other, _ = gradient(*inputs(*arrays, np.float32([1, 0])))
    assert float(one.asnumpy() + other.asnumpy()) == pytest.approx(float(both.asnumpy()), rel=1e-5)
    assert not slope.asnumpy()[0].any() and slope.asnumpy()[1].any()


def sample(samples, seconds=4):
    """A sample of the training set as shards.py gives it, with sound but nothing to see."""
    rng, frames = np.random.default_rng(2), round(12.5 * seconds)
    return {
        "latents": rng.standard_normal((frames, 4, 6, 10), np.float32),
        "image_latents": np.zeros((4, 6, 10), np.float32),
        "clip_embedding": np.zeros(64, np.float32),
        "whisper_states": np.zeros((50 * seconds, 3, 64), np.float32),
        "mask": np.ones((48, 80), np.float32),
        "buckets": np.float32([8, 24]),
        "fps": 12.5,
        "audio": np.round(32767 * samples).astype(np.int16),
        "box": [10.0, 4.0, 60.0, 44.0],
    }


def test_the_window_has_the_sound_of_its_pictures(make_speech):
    """Those that the expert was trained on: of the same clip, read from the same shard."""
    samples, _ = make_speech(4)
    one = sample(samples)
    batches = ClipBatches([one], 20, SMALL, 1.0, NoiseConfig(), SyncWindows(8, 8, np.inf))
    trained = MouthClip(np.zeros((100, 48, 64, 3), np.uint8), clip_mel(one["audio"] / np.float32(32767)), np.ones(100))
    windows = MouthWindows([trained] * 2, 8, 4)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        clip = batches.clip(np.random.default_rng(seed))
        *_, index, sigma, rows, columns, mel, counts = batches(rng, 1)
        first = clip["first"] + index[0]
        assert np.array_equal(index, index[0] + np.arange(8)) and 0 <= index[0] <= 12
        assert np.array_equal(mel[0], windows.sound(trained, 2 * first))
        assert rows.shape == (1, 48, 48) and columns.shape == (1, 80, 64) and sigma.shape == (1, 1, 1, 1, 1)
        assert counts.shape == (1,)


def test_which_clips_count(make_speech):
    samples, _ = make_speech(4)
    clips = [sample(samples) | {"first": 0} for _ in range(4)] + [sample(np.zeros(64000)) | {"first": 0}]
    sigma, keep_audio = np.float32([0.5, 1.5, 0.5, 0.999, 0.5]), np.float32([1, 1, 0, 1, 1])
    drawn = Draw(np.zeros(0), sigma, keep_audio, np.ones(5, np.float32), np.ones(5, np.float32))
    *_, mel, counts = SyncWindows(8, 8, 1.0)(np.random.default_rng(0), clips, drawn)
    assert counts.tolist() == [1, 0, 0, 1, 0]
    assert not mel[4].any() and mel[3].any()
    assert drawn.keep_audio.tolist() == [1, 1, 0, 1, 1]


def test_samples_without_sound(make_speech):
    one = sample(make_speech(4)[0])
    del one["audio"]
    with pytest.raises(UsageError, match="lacks audio"):
        ClipBatches([one], 20, SMALL, 1.0, NoiseConfig(), SyncWindows(8, 8, 1.0))(np.random.default_rng(0), 1)
    ClipBatches([one], 20, SMALL, 1.0, NoiseConfig())(np.random.default_rng(0), 1)


def recipe(expert, **changes):
    loop = LoopConfig(1, 1, 1e-3)
    return base.BaseFinetuneConfig("model", "shards", loop, ("all",), 4, sync=SyncConfig(str(expert)), **changes)


def test_the_whole_loss_and_what_of_it_is_trained(networks):
    """SonicLoss and the term, added up; decoder and expert are neither trained nor kept in checkpoints."""
    cells = {name: CELLS[name](SMALL[name]) for name in trained.TRAINED}
    small = SimpleNamespace(cells=cells, configs=SMALL)
    config = recipe("expert", recompute=False)
    plain = trained.build_loss(small, config)
    names = {parameter.name for parameter in plain.trainable_params()}
    term = SyncTerm(Decoder(SMALL["vae"]), 0.2, networks[3], EXPERT.frames)
    loss = trained.build_loss(small, config, term)
    assert {parameter.name for parameter in loss.trainable_params()} == names
    frozen = {parameter.name for parameter in loss.get_parameters()} - names
    assert frozen and all(name.startswith(("sync.decoder.", "sync.expert.")) for name in frozen)
    assert not any("sync" in name for name in States(loss.trainable_params(), Group()).tensors())


def test_a_run_with_the_term(tmp_path, make_speech):
    """A step through UNet, decoder and expert: the UNet's audio layers change, decoder and expert do not."""
    folder = tmp_path / "model"
    for name in (*trained.TRAINED, "vae"):
        save_model(randomise(CELLS[name](SMALL[name])), SMALL[name], folder / name)
    save_model(expert(), EXPERT, tmp_path / "expert")
    sync = SyncConfig(str(tmp_path / "expert"), weight=0.5, max_sigma=1000)
    config = base.BaseFinetuneConfig(
        str(folder), "shards", LoopConfig(1, 1, 1e-2, warmup=1), ("audio",), 4, sync=sync, recompute=False
    )
    last = base.finetune(config, [sample(make_speech(4)[0])], tmp_path / "run")
    assert np.isfinite(float(last["train"]))
    unet, vae = (load_file(tmp_path / "run" / "model" / name / "model.safetensors") for name in ("unet", "vae"))
    start = {name: load_file(folder / name / "model.safetensors") for name in ("unet", "vae")}
    moved = {name for name, values in unet.items() if not np.array_equal(values, start["unet"][name])}
    assert moved and all("audio" in name for name in moved)
    assert all(np.array_equal(values, start["vae"][name]) for name, values in vae.items())


def test_the_expert_is_part_of_what_a_resumed_run_must_share(tmp_path):
    for folder in ("vae", "expert"):
        save_model(expert(), EXPERT, tmp_path / folder)
    config = recipe(tmp_path / "expert")
    config = type(config)(str(tmp_path), "shards", config.loop, sync=config.sync)
    before = base.sync_digest(config)
    assert base.sync_digest(config) == before
    save_model(expert(1), EXPERT, tmp_path / "expert")
    assert base.sync_digest(config) != before


def test_clips_shorter_than_the_window(tmp_path, networks):
    save_model(networks[3], EXPERT, tmp_path / "expert")
    config = base.BaseFinetuneConfig(
        "m", "s", LoopConfig(1, 1, 1e-3), frames=2, sync=SyncConfig(str(tmp_path / "expert"))
    )
    with pytest.raises(UsageError, match=r"frames is 2; the expert .* needs at least 3"):
        base.build_sync(SimpleNamespace(configs=SMALL), config)


@pytest.mark.parametrize(
    ("changes", "message"), [({"weight": 0.0}, "sync: weight is 0.0"), ({"max_sigma": 0.0}, "max_s")]
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(UsageError, match=message):
        SyncConfig("expert", **changes)
