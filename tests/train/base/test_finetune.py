"""The recipe of sonic-base: its file, what it refuses, and which parameters each part trains. Its loss, gradients and
steps are compared with PyTorch by bench/check_train_step.py."""

from pathlib import Path

import numpy as np
import pytest

from bench import overfit_base
from sonic_ms.base.cells import CELLS
from sonic_ms.base.check import SMALL
from sonic_ms.base.configs import AdapterConfig, UNetConfig
from sonic_ms.cli import main
from sonic_ms.errors import UsageError, WeightsError
from sonic_ms.files.config import from_dict, read_yaml
from sonic_ms.files.weights import load_config
from sonic_ms.train.base import finetune as base
from sonic_ms.train.base import trained
from sonic_ms.train.base.diffusion import SonicLoss
from sonic_ms.train.base.lora import LoRAConfig, add_lora, merge_lora

RECIPE = Path(__file__).resolve().parents[3] / "configs" / "base_finetune.yaml"


def settings(**changes):
    values = read_yaml(RECIPE)
    assert values.pop("recipe") == "base_finetune"
    return values | changes


def small_loss():
    cells = [CELLS[name](SMALL[name]) for name in trained.TRAINED]
    return SonicLoss(SMALL["unet"], *cells, 2, 0.1), cells[0]


def test_the_shipped_recipe_is_valid():
    config = from_dict(base.BaseFinetuneConfig, settings(), str(RECIPE))
    assert config.trainable == ("audio", "temporal") and config.loop.precision == "fp16"
    assert config.noise == base.NoiseConfig() and config.lora == base.LoRAConfig()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": ["sound"]}, "expected some of audio, temporal, lora, all"),
        ({"trainable": []}, "expected some of"),
        ({"trainable": "audio"}, "expected a list"),
        ({"frames": 0}, "expected at least 1"),
        ({"frames": "many"}, "expected int"),
        ({"speed": 1}, "unknown keys speed"),
        ({"bucket_weight": -0.1}, "bucket_weight is -0.1; expected 0 or more"),
        ({"noise": {"log_std": -1.0}}, "noise: log_std is -1.0; expected above 0"),
        ({"noise": {"bucket_scale": [0.0, 1.0]}}, "noise: bucket_scale is .* two positive values"),
        ({"noise": {"bucket_scale": [1.2, 1.1]}}, "noise: bucket_scale is .* the smaller one first"),
        ({"noise": {"face_weight": -1.0}}, "noise: face_weight is -1.0; expected 0 or more"),
        ({"noise": {"drop_audio": 1.5}}, "noise: drop_audio is 1.5; expected 0 to 1"),
        ({"noise": {"drop_audio": 0.6, "drop_image": 0.5}}, "noise: drop_both is 0.05; expected all three"),
        ({"lora": {"rank": 0}}, "lora: rank is 0; expected at least 1"),
        ({"lora": {"alpha": 0.0}}, "lora: alpha is 0.0; expected above 0"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        from_dict(base.BaseFinetuneConfig, settings(**changes), "file")


def test_a_folder_that_is_not_a_model(tmp_path):
    with pytest.raises(WeightsError, match="lacks unet, audio2token, audio2bucket, vae"):
        base.Networks(tmp_path, "fp32")


def test_a_folder_without_clips(tmp_path, capsys):
    text = RECIPE.read_text().replace("shards: shards", f"shards: {tmp_path}")
    (tmp_path / "recipe.yaml").write_text(text)
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_what_each_part_trains():
    counts, names = {}, {}
    for part in ("audio", "temporal", "all"):
        loss, _ = small_loss()
        counts[part] = trained.freeze(loss, (part,))
        names[part] = {parameter.name for parameter in loss.trainable_params()}
    assert names["audio"] and names["temporal"] and not names["audio"] & names["temporal"]
    assert all("audio" in name for name in names["audio"])
    assert all("temporal" in name or "time_pos_embed" in name for name in names["temporal"])
    assert names["audio"] | names["temporal"] < names["all"]
    assert counts["audio"] + counts["temporal"] < counts["all"]


def test_adapters_alone_and_what_is_left_of_them():
    import mindspore as ms

    loss, unet = small_loss()
    before = {name: parameter.asnumpy().copy() for name, parameter in unet.parameters_and_names()}
    add_lora(unet, LoRAConfig(rank=2), seed=0)
    trained.freeze(loss, ("lora",))
    chosen = loss.trainable_params()
    assert chosen and all(parameter.name.endswith(("lora_up", "lora_down")) for parameter in chosen)
    for parameter in chosen:
        parameter.set_data(ms.Tensor(np.full(parameter.shape, 0.1, np.float32)))
    merge_lora(unet)
    after = {name: parameter.asnumpy() for name, parameter in unet.parameters_and_names()}
    assert set(after) == set(before)
    changed = {name for name in after if np.abs(after[name] - before[name]).max() > 1e-3}
    assert changed and all(any(part in name for part in LoRAConfig().targets) for name in changed)


def test_no_adapters_to_train():
    loss, _ = small_loss()
    with pytest.raises(UsageError, match="nothing is trained"):
        trained.freeze(loss, ("lora",))


def test_a_resumed_run_is_tied_to_all_starting_weights(tmp_path, monkeypatch):
    """Also to the last bytes of the last network; validation settings may change."""
    from types import SimpleNamespace

    loss, _ = small_loss()
    networks = SimpleNamespace(configs=SMALL, cells={}, save=lambda folder: None, folder=tmp_path)
    seen = []
    monkeypatch.setattr(base, "Networks", lambda *_: networks)
    monkeypatch.setattr(base, "build_loss", lambda *_: loss)
    monkeypatch.setattr(base, "Validation", lambda *_: None)
    monkeypatch.setattr(base, "train", lambda *arguments: seen.append(arguments[6]))
    for name in trained.TRAINED:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"some weights")
    samples = [{"latents": np.zeros((2, 4, 8, 8))}]

    def identity(**changes):
        values = settings(model=str(tmp_path), **changes)
        base.finetune(from_dict(base.BaseFinetuneConfig, values, "file"), samples, tmp_path)
        return seen[-1]

    first = identity()
    assert identity() == first
    assert identity(validation={"portrait": "a.png", "speech": "a.wav"}) == first
    assert identity(frames=2) != first
    (tmp_path / trained.TRAINED[-1] / "model.safetensors").write_bytes(b"some weightz")
    assert identity() != first


@pytest.mark.slow
def test_the_networks_of_the_overfitting_tool_fit_together(tmp_path):
    overfit_base.start_networks(tmp_path)
    unet = load_config(UNetConfig, tmp_path / "unet")
    audio, bucket = (load_config(AdapterConfig, tmp_path / name) for name in ("audio2token", "audio2bucket"))
    assert audio.output_dim == unet.cross_attention_dim == bucket.clip_channels
