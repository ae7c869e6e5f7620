"""The portable forms against torch's own operators, in graph mode."""

import mindspore as ms
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sonic_ms.nn import host, portable
from tests.support.cells import close, gradients, load, normal, run

pytestmark = [pytest.mark.slow]


def test_gelu_is_the_exact_one_over_the_whole_range():
    x = np.concatenate([np.linspace(-12, 12, 20001), [-3e4, -100, 100, 3e4]]).astype(np.float32)
    close(run(portable.gelu, x)[:-4], F.gelu(torch.from_numpy(x.astype(np.float64)))[:-4].numpy(), 1e-6)
    close(run(portable.gelu, x)[-4:], np.array([0, 0, 100, 3e4], np.float32), 0)


def test_gelu_in_half_precision_stays_finite():
    x = np.array([-60000, -40, -1, 0, 1, 40, 60000], np.float16)
    out = run(portable.gelu, x)
    assert out.dtype == np.float16
    close(out.astype(np.float32)[1:6], F.gelu(torch.from_numpy(x[1:6].astype(np.float32))), 1e-3)
    assert out[0] == 0 and out[6] == 60000


def test_silu_and_quick_gelu():
    x = normal(3, 50) * 4
    close(run(portable.silu, x), F.silu(torch.from_numpy(x)), 1e-6)
    close(run(portable.quick_gelu, x), torch.from_numpy(x) * torch.sigmoid(1.702 * torch.from_numpy(x)), 1e-6)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("shifted", [False, True])
def test_group_norm_over_frames(frames, shifted):
    x, weight, bias = normal(6, 12, 5, 7) * 3 + 2, normal(12), normal(12)
    offset = normal(6, 12) if shifted else np.zeros((6, 12), np.float32)
    cell = load(portable.GroupNorm(4, 12, 1e-5), weight=weight, bias=bias)
    ours = cell(ms.Tensor(x), frames, ms.Tensor(offset) if shifted else None).asnumpy()
    moved = torch.from_numpy(x + offset[:, :, None, None])
    clip = moved.reshape(6 // frames, frames, 12, 5, 7).transpose(1, 2)  # (b, c, frames, h, w)
    theirs = F.group_norm(clip, 4, torch.from_numpy(weight), torch.from_numpy(bias), 1e-5)
    close(ours, theirs.transpose(1, 2).reshape(6, 12, 5, 7), 5e-6)


def test_group_norm_of_a_constant_is_its_bias():
    x = np.full((1, 8, 4, 4), 1000.0, np.float32)
    out = load(portable.GroupNorm(2, 8, 1e-6), bias=np.arange(8, dtype=np.float32))(ms.Tensor(x)).asnumpy()
    assert np.isfinite(out).all()
    close(out[0, :, 0, 0], np.arange(8, dtype=np.float32), 1e-2)


def test_layer_norm():
    x, weight, bias = normal(2, 9, 16) * 3 - 1, normal(16), normal(16)
    cell = load(portable.LayerNorm(16, 1e-5), weight=weight, bias=bias)
    theirs = F.layer_norm(torch.from_numpy(x), (16,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-5)
    close(run(cell, x), theirs, 5e-6)


@pytest.mark.parametrize("size_out", [(3, 5), (14, 22), (7, 11)])
def test_bilinear_resize(size_out):
    x = normal(2, 3, 7, 11)
    theirs = F.interpolate(torch.from_numpy(x), size=size_out, mode="bilinear", align_corners=False)
    close(run(portable.Resize((7, 11), size_out), x), theirs, 2e-6)


def test_bilinear_resize_with_a_given_zoom():
    x = normal(1, 2, 9, 10)
    theirs = F.interpolate(
        torch.from_numpy(x), scale_factor=0.25, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )
    close(run(portable.Resize((9, 10), theirs.shape[2:], scale=0.25), x), theirs, 2e-6)


def test_bicubic_matrix():
    x = normal(1, 1, 24, 40)
    theirs = F.interpolate(torch.from_numpy(x), size=(6, 5), mode="bicubic", align_corners=False)
    ours = host.resize_matrix(24, 6, "bicubic") @ x[0, 0] @ host.resize_matrix(40, 5, "bicubic").T
    close(ours, theirs[0, 0], 2e-6)
    with pytest.raises(ValueError, match="area"):
        host.resize_matrix(4, 2, "area")


@pytest.mark.parametrize("batch", [1, 2])
def test_gather_bilinear_is_grid_sample_with_borders(batch):
    image, grid = normal(batch, 3, 6, 9), np.random.default_rng(5).uniform(-3, 12, (batch, 2, 5, 4)).astype(np.float32)
    scale = torch.tensor([2 / 8, 2 / 5]).reshape(1, 2, 1, 1)
    normalised = (torch.from_numpy(grid) * scale - 1).permute(0, 2, 3, 1)
    theirs = F.grid_sample(
        torch.from_numpy(image), normalised, mode="bilinear", padding_mode="border", align_corners=True
    )
    close(run(portable.gather_bilinear, image, grid), theirs, 5e-6)


def test_the_pixel_grid_samples_the_image_itself():
    image = normal(1, 3, 6, 9)
    close(run(portable.gather_bilinear, image, host.pixel_grid(6, 9)), image, 0)


def test_nearest_x2():
    x = normal(2, 3, 4, 5)
    close(run(portable.nearest_x2, x), F.interpolate(torch.from_numpy(x), scale_factor=2.0, mode="nearest"), 0)


def test_transposed_convolution():
    x, weight, bias = normal(2, 5, 4, 7), normal(5, 3, 4, 4), normal(3)
    cell = load(
        portable.TransposedConvX2(5, 3),
        conv__weight=portable.TransposedConvX2.phases(weight),
        conv__bias=np.repeat(bias, 4),
    )
    tensors = [torch.from_numpy(array) for array in (x, weight, bias)]
    close(run(cell, x), F.conv_transpose2d(*tensors, stride=2, padding=1), 1e-5)


@pytest.mark.parametrize("frames", [1, 2, 4])
def test_convolution_over_frames(frames):
    x, weight, bias = normal(4, 5, 3, 6), normal(7, 5, 3, 1, 1), normal(7)
    cell = load(portable.FrameConv(5, 7), conv__weight=portable.FrameConv.stacked(weight), conv__bias=bias)
    clip = torch.from_numpy(x).reshape(4 // frames, frames, 5, 3, 6).transpose(1, 2)
    theirs = F.conv3d(clip, torch.from_numpy(weight), torch.from_numpy(bias), padding=(1, 0, 0))
    close(cell(ms.Tensor(x), frames).asnumpy(), theirs.transpose(1, 2).reshape(4, 7, 3, 6), 1e-5)


def test_padded_convolution_pads_the_named_sides():
    x, weight, bias = normal(1, 2, 6, 8), normal(3, 2, 3, 3), normal(3)
    cell = load(portable.PaddedConv2d(2, 3, 3, 2, (0, 1, 2, 0)), conv__weight=weight, conv__bias=bias)
    padded = F.pad(torch.from_numpy(x), (2, 0, 0, 1))
    close(run(cell, x), F.conv2d(padded, torch.from_numpy(weight), torch.from_numpy(bias), stride=2), 1e-5)


def test_prelu():
    x, slope = normal(2, 4, 3, 3), normal(4)
    cell = load(portable.PReLU(4), weight=slope)
    close(run(cell, x), F.prelu(torch.from_numpy(x), torch.from_numpy(slope)), 1e-6)


def test_the_gradients_of_gated_gelu_that_keeps_its_inputs_only():
    gate = np.concatenate([np.linspace(-12, 12, 2001), [-3e4, -100, 100, 3e4]]).astype(np.float32)
    arrays, change = (normal(*gate.shape), gate), normal(*gate.shape)
    tensors = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in arrays]
    (tensors[0] * F.gelu(tensors[1]) * torch.from_numpy(change)).sum().backward()
    to_value, to_gate = gradients(portable.GatedGelu(), *arrays, change=change)
    np.testing.assert_allclose(to_value, tensors[0].grad.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_gate, tensors[1].grad.numpy(), rtol=1e-5, atol=1e-5)


def test_softmax_of_large_half_precision_scores():
    x = np.array([[30000, 30001, -60000]], np.float16)
    close(run(portable.softmax, x).astype(np.float32), F.softmax(torch.from_numpy(x.astype(np.float32)), -1), 1e-3)


def test_timestep_embedding_puts_cosines_first():
    out = host.timestep_embedding([0.0, 1.5], 6)
    assert out[0].tolist() == [1, 1, 1, 0, 0, 0]
    frequency = 1e4 ** (-np.arange(3) / 3)
    close(out[1], np.concatenate([np.cos(1.5 * frequency), np.sin(1.5 * frequency)]).astype(np.float32), 1e-6)


def test_the_onnx_export_has_no_tiles(tmp_path):
    """Operands are tiled for MindSpore's CPU; ONNX operators broadcast by themselves."""
    import onnx
    import onnxruntime

    from sonic_ms.deploy.onnx_fixes import drop_tiles

    x, weight, bias = normal(2, 12, 5, 7), normal(12), normal(12)
    cell = load(portable.GroupNorm(4, 12, 1e-5), weight=weight, bias=bias)
    ms.onnx.export(cell, ms.Tensor(x), file_name=str(tmp_path / "norm.onnx"))
    model = onnx.load(tmp_path / "norm.onnx")
    assert [node.op_type for node in model.graph.node].count("Tile") == 2
    drop_tiles(model)
    assert "Tile" not in [node.op_type for node in model.graph.node]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    close(found, cell(ms.Tensor(x)).asnumpy(), 1e-5)


def test_a_tile_that_gives_the_size_stays():
    """Nothing else of that sum or product has it."""
    from onnx import TensorProto, helper

    from sonic_ms.deploy.onnx_fixes import drop_tiles

    def graph(*nodes):
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y", "out")]
        repeats = helper.make_tensor("repeats", TensorProto.INT64, [2], [1, 4])
        one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
        return helper.make_model(helper.make_graph(nodes, "g", ends[:2], ends[2:], [repeats, one]))

    def tile(source, name):
        return helper.make_node("Tile", [source, "repeats"], [name])

    for nodes in (
        (tile("x", "a"), helper.make_node("Add", ["a", "one"], ["out"])),
        (tile("x", "a"), tile("y", "b"), helper.make_node("Mul", ["a", "b"], ["out"])),
        (tile("x", "a"), helper.make_node("Relu", ["a"], ["out"])),
        (tile("x", "out"),),
    ):
        model = graph(*nodes)
        drop_tiles(model)
        assert len(model.graph.node) == len(nodes)
