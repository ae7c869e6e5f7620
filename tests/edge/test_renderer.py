import dataclasses

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from sonic_ms.edge.renderer import (
    FEATURES,
    UPPER_GAPS,
    EdgeRenderer,
    Enlarge,
    Interleave,
    MouthFeatures,
    Painter,
    PainterConfig,
    Sample,
    fold_norms,
    interior,
    nearness,
    nodes,
    unpack,
)
from sonic_ms.edge.rig import OFFSETS, UPPER_TEETH, frame_parameters
from sonic_ms.edge.texture import (
    COARSE,
    OVERSAMPLING,
    ROI_HEIGHT,
    ROI_WIDTH,
    enlarge_matrix,
    make_texture,
    patch_size,
    place_patch,
)
from sonic_ms.edge.texture import unpack as unpacked
from sonic_ms.train.edge.mouths import Dentition, random_face, random_rig

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
SIDE = 256


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    rig = dataclasses.replace(random_rig(rng, open_photo=False), light=np.array([0.9, 0.8, 0.6]))
    crop = np.round(random_face(rng, SIDE, rig, Dentition()))
    painter = Painter(PainterConfig())
    for parameter in painter.leave.get_parameters():  # it paints mid-grey
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
    renderer = EdgeRenderer(painter, SIDE).set_train(False)

    def render(curves, pose):
        row = frame_parameters(rig, np.atleast_2d(curves), np.atleast_2d(pose))
        patch = place_patch(rig.roi, SIDE)
        inputs = (make_texture(crop), *patch.matrices.values(), row)
        square, mouth = (output.asnumpy()[0] for output in renderer(*(Tensor(array) for array in inputs)))
        frame = unpacked(square)[..., 2::-1].astype(np.float32)
        frame[patch.rows, patch.columns] = mouth.transpose(1, 2, 0)
        return frame

    return crop, rig, render


def mouth_box(rig):
    x, y, w, h = rig.roi * SIDE
    return slice(int(y), int(y + h) + 1), slice(int(x), int(x + w) + 1)


@pytest.mark.slow
def test_a_face_at_rest_is_the_photo_itself(scene):
    crop, rig, render = scene
    frame = render(np.zeros(8), np.zeros(6))
    frame[mouth_box(rig)] = crop[mouth_box(rig)]  # a trace of paint shows on the line between the lips
    np.testing.assert_allclose(frame, crop, atol=0.01)


@pytest.mark.slow
def test_the_painter_is_told_where_teeth_end_and_part(scene):
    crop, rig, _ = scene
    curves = np.zeros((1, 8))
    curves[0, :2] = 0.9
    row = frame_parameters(rig, curves, np.zeros((1, 6)))
    features = MouthFeatures(SIDE * OVERSAMPLING)(Tensor(make_texture(crop)), Tensor(row)).asnumpy()[0]
    assert features.shape[0] == FEATURES
    u, v, upper, lower = features[10:14]
    middle = np.abs(u) < 0.03
    seam = rig.seam[0]
    assert v[middle & (upper > 0)].max() == pytest.approx(seam + UPPER_TEETH, abs=0.04)
    assert v[middle & (lower > 0)].min() == pytest.approx(seam + row[0, OFFSETS["teeth"]], abs=0.04)


def test_nearness_peaks_on_the_gaps():
    side = Tensor(np.array([*UPPER_GAPS, 0.165, 0.45], np.float32))
    np.testing.assert_allclose(nearness(side, UPPER_GAPS).asnumpy(), [1] * len(UPPER_GAPS) + [0, 0], atol=1e-5)


@pytest.mark.slow
def test_opening_the_mouth_changes_the_mouth_and_spares_the_forehead(scene):
    crop, rig, render = scene
    curves = np.zeros(8)
    curves[:2] = 0.9
    frame = render(curves, np.zeros(6))
    centre = tuple((rig.mouth[1::-1] * SIDE).astype(int) + np.array([4, 0]))
    np.testing.assert_allclose(frame[centre], 127.5 * rig.light, atol=0.5)  # what the painter paints, in this light
    top = int((rig.mouth[1] - 1.8 * rig.mouth[4]) * SIDE)
    np.testing.assert_allclose(frame[:top], crop[:top], atol=0.01)


def test_texture_gives_pixels_back_exactly_and_a_shift_of_one_pixel_too():
    crop = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.float32)
    centres = (np.arange(32, dtype=np.float32) + 0.5) / 32
    x, y = (a[None] for a in np.meshgrid(centres, centres))
    sample, texture = Sample(32 * OVERSAMPLING), Tensor(make_texture(crop))

    def look(shift):
        columns, rows = sample.texels(Tensor(x + np.float32(shift))), sample.texels(Tensor(y))
        return np.stack([plane.asnumpy()[0] for plane in unpack(sample(texture, columns, rows))], -1)

    np.testing.assert_array_equal(look(0), crop)
    np.testing.assert_array_equal(look(1 / 32)[:, :-1], crop[:, 1:])


@pytest.mark.slow
def test_folded_norms_change_nothing():
    rng = np.random.default_rng(3)
    plain, folded = (Painter(PainterConfig((8, 8, 8))).set_train(False) for _ in range(2))
    for (name, one), (_, other) in zip(plain.parameters_and_names(), folded.parameters_and_names()):
        low = 0.5 if "moving" in name or "gamma" in name else -0.2
        values = rng.uniform(low, low + 0.5, one.shape).astype(np.float32)
        one.set_data(Tensor(values))
        other.set_data(Tensor(values))
    features = Tensor(rng.random((1, FEATURES, ROI_HEIGHT, ROI_WIDTH)).astype(np.float32))
    fold_norms(folded)
    np.testing.assert_allclose(folded(features).asnumpy(), plain(features).asnumpy(), atol=1e-5)
    assert len(list(folded.get_parameters())) < len(list(plain.get_parameters()))


@pytest.mark.parametrize(("small", "large"), [(8, 20), (64, 256), (48, 96)])
def test_enlarging_keeps_a_ramp_a_ramp_and_its_ends(small, large):
    matrix = enlarge_matrix(small, large)
    np.testing.assert_allclose(matrix @ nodes(small, large), (np.arange(large) + 0.5) / large, atol=1e-6)
    assert matrix.min() >= 0  # between its nodes nothing is larger or smaller than at them


def test_enlarge_repeats_pixels():
    x = np.random.default_rng(2).standard_normal((2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(Enlarge(4, 5)(Tensor(x)).asnumpy(), x.repeat(2, 2).repeat(2, 3))


def test_interleave_is_a_pixel_shuffle():
    x = np.random.default_rng(2).standard_normal((2, 8, 3, 5)).astype(np.float32)
    expected = x.reshape(2, 2, 2, 2, 3, 5).transpose(0, 3, 4, 1, 5, 2).reshape(2, 2, 6, 10)
    np.testing.assert_allclose(Interleave(2, 3, 5)(Tensor(x)).asnumpy(), expected, atol=1e-6)


@pytest.mark.parametrize("roi", [(0.3, 0.6, 0.3, 0.225), (0.0, 0.7, 0.36, 0.27), (0.7, 0.8, 0.25, 0.19)])
def test_the_patch_holds_the_painters_rectangle_and_puts_it_in_its_place(roi):
    patch = place_patch(roi, SIDE)
    height, width = patch_size(SIDE)
    assert (patch.rows.stop - patch.rows.start, patch.columns.stop - patch.columns.start) == (height, width)
    assert patch.rows.start >= 0 and patch.rows.stop <= SIDE and patch.columns.stop <= SIDE
    rows, columns = patch.matrices["rows"], patch.matrices["columns"]
    assert rows.shape == (height, ROI_HEIGHT) and columns.shape == (ROI_WIDTH, width)
    centres = (np.arange(SIDE)[patch.columns] + 0.5) / SIDE
    inside = (centres > roi[0] + 1 / ROI_WIDTH) & (centres < min(1, roi[0] + roi[2]) - 1 / ROI_WIDTH)
    assert inside.sum() > 0.9 * min(roi[2], 1 - roi[0]) * SIDE - 3  # none of it is cut off
    placed = (np.arange(ROI_WIDTH, dtype=np.float32) + 0.5) / ROI_WIDTH @ columns
    np.testing.assert_allclose(placed[inside], ((centres - roi[0]) / roi[2])[inside], atol=1e-3)
    assert np.all(placed[(centres < roi[0] - 0.01) | (centres > roi[0] + roi[2] + 0.01)] == 0)
    np.testing.assert_array_equal(patch.matrices["field_rows"], enlarge_matrix(COARSE, SIDE)[patch.rows])


def test_a_texture_holds_every_colour_exactly():
    crop = np.random.default_rng(3).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    texture = make_texture(crop).reshape(64, 64)
    assert texture.dtype == np.float32
    bytes_of = unpacked(texture.astype(np.int32)[::4, ::4])
    np.testing.assert_array_equal(bytes_of[..., 2::-1], crop)
    assert not bytes_of[..., 3].any()


@pytest.mark.slow
def test_the_photos_own_teeth_keep_their_colour():
    rng = np.random.default_rng(5)
    rig = dataclasses.replace(random_rig(rng, open_photo=True), light=np.array([0.9, 0.8, 0.6]))
    crop = np.full((SIDE, SIDE, 3), (200, 180, 100), np.float32)
    curves = np.zeros((1, 8))
    curves[0, 1] = 0.5
    row = Tensor(frame_parameters(rig, curves, np.zeros((1, 6))))
    features = MouthFeatures(SIDE * OVERSAMPLING)(Tensor(make_texture(crop)), row)
    inside, _, mask, _ = interior(features, Tensor(rng.random((1, 4, ROI_HEIGHT, ROI_WIDTH)).astype(np.float32)))
    own = (features.asnumpy()[0, 6] == 1) & (mask.asnumpy()[0, 0] == 1)
    assert own.sum() > 50
    np.testing.assert_allclose(inside.asnumpy()[0, :, own] * 255, np.tile((200, 180, 100), (own.sum(), 1)), atol=0.05)
