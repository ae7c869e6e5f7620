"""A masked painter is the cut one; its normalisations are measured anew; candidates are judged."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.edge.renderer import BLOCKS, FEATURES, Painter, PainterConfig
from sonic_ms.errors import UsageError
from sonic_ms.small.groups import cut
from sonic_ms.small.latency import ConvTimes, conv_shapes
from sonic_ms.small.painter import layer_work
from sonic_ms.small.supernet import (
    REMEASURE,
    SANDWICH,
    Sandwich,
    SmallSearchConfig,
    SuperPainter,
    masks_of,
    moving,
    remeasure,
    run,
)
from sonic_ms.train.loop.trainer import LoopConfig

pytestmark = [pytest.mark.slow]

WIDEST, NARROW = (4, 6, 8), (2, 4, 8)
LOOP = LoopConfig(2, 1, 1e-3, warmup=1, accumulation=4, log_every=1, save_every=2)


def test_a_masked_painter_is_the_cut_one_also_in_its_statistics():
    ms.set_seed(0)
    painter = Painter(PainterConfig(WIDEST))
    masked = SuperPainter(painter)
    rng = np.random.default_rng(0)
    batches = [rng.uniform(0, 1, (2, FEATURES, 96, 128)).astype(np.float32) for _ in range(2)]
    masks = masks_of(NARROW, WIDEST)
    remeasure(masked, batches, masks)
    tensors = {name: p.asnumpy().copy() for name, p in painter.parameters_and_names()}
    counts = PainterConfig(NARROW).blocks()
    config, small = cut(tensors, PainterConfig(WIDEST), {b: np.arange(n) for b, n in zip(BLOCKS, counts)})
    assert config == PainterConfig(NARROW)
    alone = Painter(config)
    for name, parameter in alone.parameters_and_names():
        parameter.set_data(Tensor(small[name]))
    expected = masked(Tensor(batches[0]), *map(Tensor, masks)).asnumpy()
    assert alone.set_train(False)(Tensor(batches[0])).asnumpy() == pytest.approx(expected, abs=2e-5)
    features = Tensor(batches[0])  # the first block's statistics are those of its convolution's outputs
    rows = np.concatenate([alone.down1[0].conv(Tensor(b)).asnumpy() for b in batches])
    assert features.shape[0] == 2
    assert alone.down1[0].norm.moving_mean.asnumpy() == pytest.approx(rows.mean((0, 2, 3)), abs=1e-4)
    assert alone.down1[0].norm.moving_variance.asnumpy() == pytest.approx(rows.var((0, 2, 3)), rel=1e-2)
    assert len(moving(painter)) == 2 * len(BLOCKS)


def test_a_step_has_the_widest_the_narrowest_and_two_others():
    class Pictures:
        def batch(self, rng, size):
            return (np.zeros(size),)

    batches = Sandwich(Pictures(), ((8, 16, 24), (16, 48), (16, 64)))
    sizes = [[int(m.sum()) for m in batches(np.random.default_rng(i), 1)[1:]] for i in range(8)]
    assert sizes[0] == sizes[4] == [24, 48, 64] and sizes[1] == sizes[5] == [8, 16, 16]
    assert len({tuple(one) for one in (*sizes[2:4], *sizes[6:8])}) > 1


def test_times_are_of_every_shape_and_grow():
    shapes = conv_shapes(PainterConfig())
    work = layer_work(Painter(PainterConfig()))
    assert [i * o * 9 * h * w for i, o, h, w, _ in shapes] == list(work.values())
    times = ConvTimes()
    wide, narrow = times.painter(PainterConfig()), times.painter(PainterConfig((8, 16, 16)))
    assert 0 < narrow < wide and len(times.known) == len({*shapes, *conv_shapes(PainterConfig((8, 16, 16)))})


def test_the_recipe_judges_every_candidate(tmp_path, drawings, monkeypatch):
    monkeypatch.setattr("sonic_ms.small.painter.TEST_FACES", 1)
    monkeypatch.setattr("sonic_ms.small.supernet.REMEASURE", 1)
    config = SmallSearchConfig(LOOP, ((2, 4), (4,), (4, 8)), 1, str(drawings), 2, times=False)
    last = run(config, tmp_path / "run")
    records = [json.loads(p.read_text()) for p in Path(tmp_path).rglob("small.json")]
    assert {one["arm"] for one in records} == {"2,4,4", "2,4,8", "4,4,4", "4,4,8"}
    assert all(0 < one["figures"]["inside_l1"] < 1 for one in records) and last["on_front"] >= 1
    assert REMEASURE > 1 and SANDWICH == 4


def test_settings_that_cannot_be():
    with pytest.raises(UsageError, match="the sandwich rule takes 4"):
        SmallSearchConfig(LoopConfig(2, 1, 1e-3))
    with pytest.raises(UsageError, match="three lists of channels"):
        SmallSearchConfig(LOOP, ((1,), (2,)))
