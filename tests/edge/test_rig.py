import dataclasses

import numpy as np
import pytest

from sonic_ms.edge import rig as rig_module
from sonic_ms.edge.curves import CURVES, JAW, OPEN, WIDTH
from sonic_ms.edge.rig import N_PARAMETERS, OFFSETS, TERMS, build_rig, frame_parameters, lower_teeth, with_light
from sonic_ms.train.edge.mouths import random_rig
from sonic_ms.train.edge.renderer import mirrored


@pytest.fixture
def open_rig():
    return random_rig(np.random.default_rng(3), open_photo=True)


def curves(**values):
    row = np.zeros((1, len(CURVES)))
    for name, value in values.items():
        row[0, CURVES.index(name)] = value
    return row


def target(rig, row):
    parameters = frame_parameters(rig, row, np.zeros((1, 6)))[0]
    return parameters[OFFSETS["target"] :][: 4 * TERMS].reshape(4, TERMS)


def test_parameter_row_has_the_size_of_its_layout(open_rig):
    assert frame_parameters(open_rig, np.zeros((3, 8)), np.zeros((3, 6))).shape == (3, N_PARAMETERS)


def test_rest_closes_an_open_mouth(open_rig):
    assert open_rig.source[2, 0] - open_rig.source[1, 0] > 0.1
    rest = target(open_rig, curves())
    np.testing.assert_allclose(rest[1], rest[2], atol=1e-6)
    np.testing.assert_allclose(rest[1], open_rig.seam, atol=1e-6)


def test_rest_leaves_a_closed_mouth_alone():
    rig = random_rig(np.random.default_rng(4), open_photo=False)
    np.testing.assert_allclose(target(rig, curves()), rig.source, atol=1e-6)


@pytest.mark.parametrize("amount", [0.25, 0.5, 1.0])
def test_gap_follows_the_open_curve(open_rig, amount):
    shape = target(open_rig, curves(open=amount))
    assert shape[2, 0] - shape[1, 0] == pytest.approx(rig_module.MAX_GAP * open_rig.scale * amount, rel=1e-5)


def test_pressed_lips_do_not_cross_and_get_thinner(open_rig):
    rest, pressed = target(open_rig, curves()), target(open_rig, curves(open=-0.3))
    np.testing.assert_allclose(pressed[1], pressed[2], atol=1e-6)
    assert pressed[3, 0] - pressed[2, 0] < rest[3, 0] - rest[2, 0]


def test_width_narrows_more_than_it_spreads(open_rig):
    spread = frame_parameters(open_rig, curves(width=1.0), np.zeros((1, 6)))[0, OFFSETS["width"]]
    narrow = frame_parameters(open_rig, curves(width=-1.0), np.zeros((1, 6)))[0, OFFSETS["width"]]
    rest = frame_parameters(open_rig, curves(), np.zeros((1, 6)))[0, OFFSETS["width"]]
    assert spread > rest > narrow and rest - narrow > spread - rest


def test_a_smile_is_relaxed_and_does_not_widen_the_opening(open_rig):
    assert frame_parameters(open_rig, curves(), np.zeros((1, 6)))[0, OFFSETS["width"]] < 0
    smiling = dataclasses.replace(open_rig, height=5 * open_rig.mouth[4])
    wider = dataclasses.replace(smiling, mouth=smiling.mouth * np.array([1, 1, 1, 1, 1.3]))
    shape, wide = target(smiling, curves(open=1.0)), target(wider, curves(open=1.0))
    pixels, wide_pixels = (
        (contours[2, 0] - contours[1, 0]) * rig.mouth[4] for contours, rig in ((shape, smiling), (wide, wider))
    )
    assert wide_pixels == pytest.approx(pixels, rel=1e-5)


def test_jaw_moves_the_chin(open_rig):
    row = frame_parameters(open_rig, curves(jaw=0.5), np.zeros((1, 6)))[0]
    assert row[OFFSETS["chin"]] == pytest.approx(0.5 * rig_module.CHIN_DROP * open_rig.scale)


def test_lower_teeth_follow_the_jaw_and_hide_behind_the_lip():
    assert lower_teeth(0.3, 0.2) - lower_teeth(0.1, 0.2) == pytest.approx(0.95 * 0.2)
    for chin, lip in ((0.0, 0.8), (0.4, 0.8)):  # whatever the jaw does, no more of them shows
        shown = lip - (lower_teeth(chin, lip) - rig_module.UPPER_TEETH)
        assert shown <= rig_module.LOWER_TEETH + 0.021


def test_light_is_measured_on_the_skin_not_on_the_lips(open_rig):
    side = 128
    crop = np.full((side, side, 3), (150, 110, 90), np.float32)
    light = with_light(open_rig, crop).light
    centres = (np.arange(side) + 0.5) / side
    dx, dy = ((axis - open_rig.mouth[i]) / open_rig.mouth[4] for i, axis in enumerate(np.meshgrid(centres, centres)))
    cos, sin = open_rig.mouth[2:4]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    lips = np.abs(v - (open_rig.source[0, 0] + open_rig.source[3, 0]) / 2) < 0.45
    painted = np.where((lips | (np.abs(u) > 1.1))[..., None], np.float32([255, 0, 0]), crop)
    # two thirds of the skin around the lips, but less than half of all there is
    np.testing.assert_allclose(with_light(open_rig, painted).light, light)
    assert with_light(open_rig, 0.5 * crop).light.mean() < 0.8 * light.mean()


def test_mirroring_twice_is_the_same_face(open_rig):
    twice = mirrored(mirrored(open_rig))
    for name in ("mouth", "source", "seam", "head", "eyes", "brows"):
        np.testing.assert_allclose(getattr(twice, name), getattr(open_rig, name), atol=1e-12)


def test_build_rig_finds_the_open_mouth_of_a_real_photo(astronaut_landmarks):
    points, side = astronaut_landmarks
    rig = build_rig(points[:, :2] / side)
    gap = rig.source[2, 0] - rig.source[1, 0]
    assert 0.15 < gap < 0.45  # she smiles with her teeth showing
    assert rig.face[0] < 0 < rig.face[1]  # nose above, chin below the mouth
    assert np.all(rig.eyes[:, 1] < rig.mouth[1])
    assert np.all(rig.eyes[:, 5] < rig.eyes[:, 8])  # upper lids above lower lids


def test_curve_indices_match_their_names():
    assert (CURVES[JAW], CURVES[OPEN], CURVES[WIDTH]) == ("jaw", "open", "width")


def test_parted_lips_are_thin_at_rest_and_full_when_they_open(open_rig):
    def thickness(amount):
        shape = target(open_rig, curves(open=amount))
        return shape[3, 0] - shape[2, 0]

    assert thickness(0.0) < 0.9 * thickness(0.15)
    steps = np.diff([thickness(amount) for amount in np.linspace(-0.1, 0.3, 41)])
    assert np.abs(steps).max() < 0.05  # no jump anywhere
