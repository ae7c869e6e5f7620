import numpy as np
import pytest

from sonic_ms.edge.options import EdgeOptions
from sonic_ms.edge.portrait import EDGE_SIDES as SIDES
from sonic_ms.edge.portrait import moving_square, prepare_portrait
from sonic_ms.edge.rig import ROI_SPAN
from sonic_ms.edge.texture import PATCH_WIDTH
from sonic_ms.face import choose, mesh
from sonic_ms.media.paste import Paster


@pytest.fixture(scope="module")
def hopper_landmarks(hopper, analyzer):
    return choose.find_mesh(hopper, analyzer)[0]


def test_frame_has_the_asked_short_side_and_even_sides(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(min_resolution=300))
    assert min(scene.frame.shape[:2]) == 300
    assert all(side % 2 == 0 for side in scene.frame.shape[:2])


def test_keep_resolution_keeps_it(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(keep_resolution=True))
    assert scene.frame.shape == (hopper.shape[0] // 2 * 2, hopper.shape[1] // 2 * 2, 3)


def test_rig_follows_the_resize(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(min_resolution=1024))
    x, y, length = scene.box
    corners = hopper_landmarks.points[[mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER], :2].mean(0)
    scale = 1024 / min(hopper.shape[:2])
    found = scene.rig.mouth[:2] * length + np.array([x, y])
    np.testing.assert_allclose(found, (corners + 0.5) * scale, atol=1.0)


def test_square_is_large_enough_and_of_a_known_side(hopper_landmarks):
    for ratio in (0.0, 0.2, 1.0):
        _, _, length = moving_square(hopper_landmarks.points, ratio)
        needed = mesh.face_height(hopper_landmarks.points) * (2 + 2 * ratio)
        assert length in SIDES and length >= 0.95 * needed


def test_a_wide_mouth_makes_the_square_larger(hopper, hopper_landmarks):
    points = hopper_landmarks.points.copy()
    corners = [mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER]
    points[corners] += 0.8 * (points[corners] - points[corners].mean(0))
    for scale in (0.7, 1.0, 1.4, 8.0):
        _, _, length = moving_square(points * scale, 0.0)
        painted = ROI_SPAN[0] / 2 * np.linalg.norm(np.ptp(points[corners, :2], 0)) * scale
        assert painted <= PATCH_WIDTH * length - 1


def test_pasting_the_untouched_square_gives_the_frame_back(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(expand_ratio=1.5))
    x, y, _length = scene.box
    assert x < 0 or y < 0  # the square reaches outside the photo
    np.testing.assert_array_equal(Paster(scene).paste(scene.crop), scene.frame)


def test_only_the_square_changes(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(expand_ratio=0.0, min_resolution=400))
    pasted = Paster(scene).paste(np.zeros_like(scene.crop))
    x, y, length = scene.box
    changed = np.any(pasted != scene.frame, axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= max(0, y) and rows.max() < y + length
    assert columns.min() >= max(0, x) and columns.max() < x + length


def test_a_head_larger_than_the_largest_graph_fades_in_softly(hopper, hopper_landmarks):
    scene = prepare_portrait(hopper, hopper_landmarks, EdgeOptions(min_resolution=3000))
    assert scene.box[2] > SIDES[-1] == scene.crop.shape[0]
    brighter = np.clip(scene.crop.astype(int) + 40, 0, 255).astype(np.uint8)
    pasted = Paster(scene).paste(brighter).astype(int)
    row = int(scene.box[1] + scene.box[2] / 2)
    start = max(0, scene.box[0])
    step = np.abs(np.diff((pasted - scene.frame)[row, start : start + 40].mean(axis=1)))
    assert step.max() < 12  # no edge of 40 levels anywhere


def test_light_on_the_mouth_follows_the_photo(hopper, hopper_landmarks):
    lit, dim = (
        prepare_portrait(photo, hopper_landmarks, EdgeOptions()).rig.light.mean()
        for photo in (hopper, (hopper * 0.4).astype(np.uint8))
    )
    assert dim < 0.75 * lit
