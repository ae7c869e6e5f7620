import numpy as np
import pytest

from sonic_ms.edge.rig import scene_light
from sonic_ms.train.edge.mouths import Dentition, lip_shade, paint_interior, random_face, random_rig

U, V = np.meshgrid(np.linspace(-0.9, 0.9, 61), np.linspace(-0.1, 0.6, 57))
SEAM = np.zeros_like(U)


def mouth(drop, tongue=0.0, light=1.0):
    upper, lower = -0.1 * (1 - U**2), 0.55 * (1 - U**2)
    return paint_interior(U, V, V - upper, lower - V, SEAM, drop, tongue, np.full(3, light), Dentition())


def brightness(image, v, u=0.15):
    row, column = np.abs(V[:, 0] - v).argmin(), np.abs(U[0] - u).argmin()
    return image[row, column].mean()


def test_upper_teeth_stay_and_lower_teeth_go_down_with_the_jaw():
    shut, wide = mouth(0.1), mouth(0.5)
    assert brightness(wide, 0.02) == pytest.approx(brightness(shut, 0.02), abs=0.02)
    assert brightness(wide, 0.02) > 0.5  # a tooth
    assert brightness(wide, 0.25) < 0.35  # the dark between the rows
    assert brightness(shut, 0.25) > brightness(wide, 0.25)


def test_the_tongue_rises_and_is_red():
    raised = mouth(0.5, tongue=1.0)
    row, column = np.abs(V[:, 0] - 0.4).argmin(), np.abs(U[0] - 0.15).argmin()
    red, green, _ = raised[row, column]
    assert red > 1.5 * green
    assert raised.mean() > mouth(0.5, tongue=0.0).mean()


def test_corners_are_darker_than_the_middle_and_light_scales_all():
    image = mouth(0.45)
    assert brightness(image, 0.02, 0.82) < 0.5 * brightness(image, 0.02)
    assert mouth(0.45, light=0.5).mean() == pytest.approx(0.5 * image.mean(), rel=1e-6)


def test_a_line_is_drawn_only_where_an_open_photo_is_closed():
    below, above = V, -V
    closed = lip_shade(below, above, U, gap=0.0, source_gap=0.3)
    assert closed.min() < -0.4
    assert lip_shade(below, above, U, gap=0.0, source_gap=0.0).min() > -0.05


@pytest.mark.parametrize("open_photo", [True, False])
def test_made_up_faces_are_pictures(open_photo):
    rng = np.random.default_rng(0)
    face = random_face(rng, 96, random_rig(rng, open_photo), Dentition())
    assert face.shape == (96, 96, 3) and face.dtype == np.float32
    assert face.min() >= 0 and face.max() <= 255 and face.std() > 5


def test_darker_skin_means_less_light_but_teeth_stay_lighter_than_skin():
    dark, fair = np.array([0.28, 0.18, 0.13]), np.array([0.9, 0.74, 0.64])
    assert scene_light(dark).mean() < scene_light(fair).mean()
    assert (scene_light(dark) * Dentition().shade).mean() > dark.mean()
