import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from sonic_ms.edge.curves import CURVES
from sonic_ms.edge.motion import FaceField, MouthField
from sonic_ms.edge.renderer import grid
from sonic_ms.edge.rig import TERMS, frame_parameters
from sonic_ms.train.edge.mouths import random_rig

pytestmark = [pytest.mark.slow]

ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


class Fields(nn.Cell):
    def __init__(self):
        super().__init__()
        self.field = FaceField()

    def construct(self, x, y, parameters):
        return self.field(x, y, parameters)


FIELDS = Fields()
MOUTH = MouthField()


def basis(u):
    arch = 1 - u**2
    return np.stack([arch * u**k for k in range(5)] + [u**2])


def face_fields(rig, curves, pose):
    x, y = grid(40, 56, 80, 112)
    row = frame_parameters(rig, curves, pose)
    outputs = FIELDS(x, y, Tensor(row))
    return x.asnumpy()[0], y.asnumpy()[0], [output.asnumpy()[0] for output in outputs]


def test_nothing_moves_at_rest_on_a_closed_mouth():
    rig = random_rig(np.random.default_rng(0), open_photo=False)
    x, y, (upper_x, upper_y, lower_x, lower_y, _, _) = face_fields(rig, np.zeros((1, 8)), np.zeros((1, 6)))
    for found, expected in ((upper_x, x), (lower_x, x), (upper_y, y), (lower_y, y)):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_lip_edges_land_exactly_on_the_photos_lip_edges():
    """A pixel on a target contour must be read from the same contour of the photo: lips are neither cut nor doubled."""
    rig = random_rig(np.random.default_rng(1), open_photo=True)
    curves = np.zeros((1, 8))
    curves[0, [CURVES.index("open"), CURVES.index("jaw")]] = 0.6, 0.5
    row = frame_parameters(rig, curves, np.zeros((1, 6)))
    first = 6  # mouth (5) and width (1) come before the contours
    source = row[0, first : first + 4 * TERMS].reshape(4, TERMS)
    target = row[0, first + 4 * TERMS : first + 8 * TERMS].reshape(4, TERMS)
    place = np.linspace(-0.7, 0.7, 15)  # between the corners, which have moved together
    u = (place * (1 + row[0, 5])).astype(np.float32)
    for contour, layer in ((0, 1), (1, 1), (2, 2), (3, 2)):
        v = (target[contour] @ basis(place)).astype(np.float32)
        outputs = [o.asnumpy()[0, 0] for o in MOUTH(Tensor(u[None, None]), Tensor(v[None, None]), Tensor(row))]
        np.testing.assert_allclose(outputs[0], place, atol=1e-5)
        np.testing.assert_allclose(outputs[layer], source[contour] @ basis(place), atol=2e-3)


def test_the_opening_is_where_both_distances_are_positive():
    rig = random_rig(np.random.default_rng(2), open_photo=False)
    curves = np.zeros((1, 8))
    curves[0, CURVES.index("open")] = 1.0
    x, y, outputs = face_fields(rig, curves, np.zeros((1, 6)))
    inside = (outputs[4] > 0) & (outputs[5] > 0)
    assert inside.any()
    assert np.hypot(x[inside] - rig.mouth[0], y[inside] - rig.mouth[1]).max() < 1.1 * rig.mouth[4]


def test_head_motion_fades_out_at_the_border():
    rig = random_rig(np.random.default_rng(3), open_photo=False)
    x, y, outputs = face_fields(rig, np.zeros((1, 8)), np.array([[0.03, 0.02, 0.05, 0.02, 0, 0]]))
    moved = np.hypot(outputs[0] - x, outputs[1] - y)
    assert moved[20, 28] > 0.005
    edge = np.concatenate([moved[0], moved[-1], moved[:, 0], moved[:, -1]])
    assert edge.max() < 2e-4


@pytest.mark.parametrize(("column", "region"), [(4, "eyes"), (5, "brows")])
def test_blinks_and_brows_move_only_their_own_region(column, region):
    rig = random_rig(np.random.default_rng(5), open_photo=False)
    pose = np.zeros((1, 6))
    pose[0, column] = 1.0
    _, y, outputs = face_fields(rig, np.zeros((1, 8)), pose)
    moved = np.abs(outputs[1] - y) > 1e-4
    assert moved.any()
    below = y > getattr(rig, region)[:, 1].max() + 0.12
    assert not moved[below].any()


def test_a_positive_roll_turns_the_head_clockwise():
    rig = random_rig(np.random.default_rng(0), open_photo=False)
    pose = np.zeros((1, 6))
    pose[0, 2] = 0.02
    x, y, (upper_x, upper_y, *_) = face_fields(rig, np.zeros((1, 8)), pose)
    centre_x, centre_y, radius_x, radius_y = rig.head
    inside = np.hypot((x - centre_x) / radius_x, (y - centre_y) / radius_y) < 0.8
    inside &= (np.abs(x - 0.5) < 0.35) & (np.abs(y - 0.5) < 0.35)  # nothing moves at the border of the crop
    right, below = x - centre_x, y - centre_y
    # what is now right of the centre was higher before, what is below was further right
    np.testing.assert_allclose((y - upper_y)[inside], 0.02 * right[inside], atol=2e-3)
    np.testing.assert_allclose((x - upper_x)[inside], -0.02 * below[inside], atol=2e-3)
