"""Faces: what is found on two public portraits, collages and things that are no faces; landmarks under rotation, scale
and noise; choosing one, with its errors and notes."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from sonic_ms.errors import FaceError
from sonic_ms.face import choose, detect, mesh
from sonic_ms.media.image import load_image

pytestmark = [pytest.mark.slow]


def rotate(image, degrees):
    """Image turned clockwise about its centre, and the (2, 3) matrix old pixels -> new pixels."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1)
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), matrix


def apart(points, other):
    """Mean distance of two meshes as a fraction of the face height."""
    return np.linalg.norm(points[:, :2] - other[:, :2], axis=1).mean() / mesh.face_height(points)


@pytest.fixture(scope="module")
def hopper_points(analyzer, hopper):
    return analyzer.landmarks(hopper, analyzer.detect(hopper)[0]).points


@pytest.fixture(scope="module")
def group(hopper, astronaut):
    """Five faces of 60 to 120 pixels on one 700x1200 picture, largest first: their centres (x, y)."""
    picture = np.full((700, 1200, 3), 128, np.uint8)
    centres = []
    for source, centre, width, (x, y), scale in [
        (hopper, (270, 245), 200, (150, 200), 0.6),
        (astronaut, (224, 125), 102, (450, 500), 1.05),
        (hopper, (270, 245), 200, (700, 180), 0.45),
        (astronaut, (224, 125), 102, (950, 480), 0.75),
        (hopper, (270, 245), 200, (1080, 150), 0.3),
    ]:
        part = source[centre[1] - int(0.6 * width * 1.8) : centre[1] + width, centre[0] - width : centre[0] + width]
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = y - int(0.52 * part.shape[0]), x - part.shape[1] // 2
        picture[top : top + part.shape[0], left : left + part.shape[1]] = part
        centres.append((x, y))
    return picture, centres


def contains(box, point):
    return box[0] < point[0] < box[0] + box[2] and box[1] < point[1] < box[1] + box[3]


def test_one_face_on_each_portrait(analyzer, astronaut, hopper):
    for image, nose, width in ((astronaut, (223, 135), 101), (hopper, (270, 250), 195)):
        faces = analyzer.detect(image)
        assert len(faces) == 1 and faces[0].score > 0.85
        assert contains(faces[0].box, nose) and abs(faces[0].box[2] / width - 1) < 0.15
        assert faces[0].keypoints.shape == (6, 2)
        assert np.linalg.norm(faces[0].keypoints[2] - nose) < 0.15 * width
        assert faces[0].keypoints[0, 0] < nose[0] < faces[0].keypoints[1, 0]  # the right eye is on the left


def test_nothing_on_other_pictures(analyzer):
    from skimage import data

    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for image in (data.coffee(), data.chelsea(), noise, np.zeros((64, 64, 3), np.uint8)):
        assert analyzer.detect(image) == []


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.3])
def test_small_faces_in_a_large_photo(analyzer, hopper, scale):
    """Face boxes of 195, 98 and 58 pixels in 1600x1200."""
    picture = np.full((1200, 1600, 3), 120, np.uint8)
    small = cv2.resize(hopper, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    picture[500 : 500 + small.shape[0], 830 : 830 + small.shape[1]] = small
    faces = analyzer.detect(picture)
    assert len(faces) == 1
    assert contains(faces[0].box, (830 + 270 * scale, 500 + 250 * scale))
    assert abs(faces[0].box[2] / (195 * scale) - 1) < 0.2


def test_group_is_sorted_by_size(analyzer, group):
    picture, centres = group
    faces = analyzer.detect(picture)
    assert len(faces) == 5
    assert [next(i for i, c in enumerate(centres) if contains(f.box, c)) for f in faces] == [0, 1, 2, 3, 4]


def test_large_photo_gives_the_same_points(analyzer, hopper, hopper_points):
    large = cv2.resize(hopper, None, fx=6, fy=6, interpolation=cv2.INTER_CUBIC)
    found = analyzer.landmarks(large, analyzer.detect(large)[0]).points
    assert apart(hopper_points, (found[:, :2] + 0.5) / 6 - 0.5) < 0.01


def test_index_tuples_lie_where_their_names_say(hopper_points):
    x, y = hopper_points[:, 0], hopper_points[:, 1]
    upper, lower = list(mesh.INNER_UPPER_LIP), list(mesh.INNER_LOWER_LIP)
    for line in (mesh.OUTER_UPPER_LIP, mesh.OUTER_LOWER_LIP, mesh.INNER_UPPER_LIP, mesh.INNER_LOWER_LIP):
        assert len(line) == 11 and (np.diff(x[list(line)]) > 0).all()
    assert (y[list(mesh.OUTER_UPPER_LIP)][1:-1] < y[upper][1:-1]).all()
    assert (y[list(mesh.OUTER_LOWER_LIP)][1:-1] > y[lower][1:-1]).all()
    assert (np.abs(x[upper] - x[lower]) < 0.02 * mesh.face_height(hopper_points)).all()
    for above, below, brow in (
        (mesh.RIGHT_EYE_UPPER, mesh.RIGHT_EYE_LOWER, mesh.RIGHT_BROW_LOWER),
        (mesh.LEFT_EYE_UPPER, mesh.LEFT_EYE_LOWER, mesh.LEFT_BROW_LOWER),
    ):
        assert above[0] == below[0] and above[-1] == below[-1] and len(above) == len(below)
        assert (np.diff(x[list(above)]) > 0).all() and (np.diff(x[list(below)]) > 0).all()
        assert (y[list(above)][1:-1] < y[list(below)][1:-1]).all()
        assert y[list(brow)].max() < y[list(above)].min()
    assert y[list(mesh.RIGHT_BROW_UPPER)].mean() < y[list(mesh.RIGHT_BROW_LOWER)].mean()
    assert y[list(mesh.LEFT_BROW_UPPER)].mean() < y[list(mesh.LEFT_BROW_LOWER)].mean()
    oval = hopper_points[list(mesh.FACE_OVAL), :2]
    inside = [cv2.pointPolygonTest(oval.reshape(-1, 1, 2), (float(a), float(b)), True) for a, b in zip(x, y)]
    assert min(inside) > -0.02 * mesh.face_height(hopper_points)
    assert y.argmin() in (mesh.FOREHEAD, 338, 109) and y[mesh.CHIN] > np.percentile(y, 98)
    assert hopper_points[mesh.NOSE_TIP, 2] < np.percentile(hopper_points[:, 2], 2)  # nearest to the camera


@pytest.mark.parametrize("degrees", [-60, -30, 30, 60])
def test_rolled_heads(analyzer, hopper, hopper_points, degrees):
    turned, matrix = rotate(hopper, degrees)
    expected = hopper_points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    found = analyzer.landmarks(turned, analyzer.detect(turned)[0])
    assert found.score > 0.95 and apart(expected, found.points) < 0.012
    assert abs(mesh.pose(found.points)[2] - mesh.pose(hopper_points)[2] - degrees) < 3


@pytest.mark.parametrize("degrees", [-45, 0, 45])
def test_bare_boxes_need_not_be_exact(analyzer, hopper, hopper_points, degrees):
    turned, matrix = rotate(hopper, degrees)
    expected = hopper_points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    centre = expected.mean(0)
    for side, shift in ((160, (-20, 10)), (280, (20, -20))):
        found = analyzer.landmarks(turned, (*(centre + shift - side / 2), side, side))
        assert apart(expected, found.points) < 0.02


def test_mirrored_photo_gives_mirrored_points(analyzer, hopper, hopper_points):
    mirrored = np.ascontiguousarray(hopper[:, ::-1])
    found = analyzer.landmarks(mirrored, analyzer.detect(mirrored)[0]).points
    pairs = [(33, 263), (133, 362), (61, 291), (78, 308), (1, 1), (13, 13), (17, 17)]
    pairs += [(b, a) for a, b in pairs[:4]]
    offsets = [hopper_points[a, 0] + found[b, 0] - (hopper.shape[1] - 1) for a, b in pairs]
    assert abs(np.mean(offsets)) < 1.2  # a convention half a crop pixel off shows as 1.6
    yaw, pitch, roll = np.add(mesh.pose(hopper_points), np.multiply(mesh.pose(found), (1, -1, 1)))
    assert abs(yaw) < 5 and abs(pitch) < 5 and abs(roll) < 2


def test_mouth_opening(analyzer, astronaut, hopper_points):
    assert mesh.mouth_opening(hopper_points) < 0.025
    smiling = analyzer.landmarks(astronaut, analyzer.detect(astronaut)[0]).points
    assert 0.04 < mesh.mouth_opening(smiling) < 0.09
    opened = hopper_points.copy()
    opened[mesh.LOWER_LIP_MIDDLE, 1] += 0.1 * mesh.face_height(hopper_points)
    assert abs(mesh.mouth_opening(opened) - mesh.mouth_opening(hopper_points) - 0.1) < 0.02


def turn(points, yaw=0.0, pitch=0.0):
    """Mesh turned as a rigid body: yaw > 0 to the image's right, pitch > 0 up, degrees."""
    depth = np.array([1, 1, mesh.MESH_DEPTH])
    a, b = np.radians([yaw, pitch])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return (((points * depth) @ about_y.T @ about_x.T) / depth).astype(np.float32)


@pytest.mark.parametrize("angle", [-40, -20, 20, 40])
def test_pose_of_turned_meshes(hopper_points, angle):
    centred = hopper_points - hopper_points.mean(0)
    start = np.array(mesh.pose(centred))
    assert np.abs(start).max() < 10
    turned = turn(centred, yaw=angle)
    assert np.sign(turned[mesh.NOSE_TIP, 0] - centred[mesh.NOSE_TIP, 0]) == np.sign(angle)
    assert abs(mesh.pose(turned)[0] - start[0] - angle) < 2
    nodded = turn(centred, pitch=angle)
    assert np.sign(centred[mesh.NOSE_TIP, 1] - nodded[mesh.NOSE_TIP, 1]) == np.sign(angle)
    assert abs(mesh.pose(nodded)[1] - start[1] - angle) < 2


def test_track_is_steady_on_a_still(analyzer, hopper):
    rng = np.random.default_rng(0)
    frames = (np.clip(hopper + rng.normal(0, 3, hopper.shape), 0, 255).astype(np.uint8) for _ in range(25))
    points = np.stack([found.points for found in analyzer.track(frames)])
    eyes = points[:, [33, 133, 362, 263], :2]
    assert np.abs(np.diff(eyes, 2, axis=0)).mean() < 0.3  # pixels, on a face 204 pixels high
    assert np.std([mesh.mouth_opening(p) for p in points]) < 0.002


def test_track_follows_and_finds_again(analyzer, hopper, hopper_points):
    size = hopper.shape[1::-1]
    motions = []
    for i in range(24):
        matrix = cv2.getRotationMatrix2D((256, 300), 10 * np.sin(i / 5), 1 + 0.08 * np.sin(i / 7))
        matrix[:, 2] += 35 * np.sin(i / 6), 12 * np.cos(i / 5)
        motions.append(matrix)
    frames = [cv2.warpAffine(hopper, matrix, size, borderMode=cv2.BORDER_REFLECT) for matrix in motions]
    frames[8:10] = [np.zeros_like(hopper)] * 2
    tracked = list(analyzer.track(frames))
    assert [i for i, found in enumerate(tracked) if found is None] == [8, 9]
    for found, matrix in zip(tracked, motions):
        if found is not None:
            assert apart(hopper_points[:, :2] @ matrix[:, :2].T + matrix[:, 2], found.points) < 0.02


def test_track_keeps_up_with_a_sudden_turn(analyzer, hopper, hopper_points):
    turned, matrix = rotate(hopper, 40)
    *_, last = analyzer.track([hopper, turned, turned])
    assert apart(hopper_points[:, :2] @ matrix[:, :2].T + matrix[:, 2], last.points) < 0.012


def test_choose_the_only_face(analyzer, hopper, hopper_points):
    found, notes = choose.find_mesh(hopper, analyzer)
    np.testing.assert_array_equal(found.points, hopper_points)
    assert notes == []


def test_choose_among_several(analyzer, group):
    picture, centres = group
    found, notes = choose.find_mesh(picture, analyzer)
    assert np.linalg.norm(found.points[mesh.NOSE_TIP, :2] - centres[0]) < 40
    assert len(notes) == 1 and notes[0].startswith("5 faces found")
    found, _ = choose.find_mesh(picture, analyzer, face=1)
    assert np.linalg.norm(found.points[mesh.NOSE_TIP, :2] - centres[1]) < 40
    for index in (5,):
        with pytest.raises(FaceError, match="face 5 does not exist: the photo has faces 0 to 4"):
            choose.find_mesh(picture, analyzer, face=index)
    with pytest.raises(FaceError, match="expected 'largest' or an index"):
        choose.find_mesh(picture, analyzer, face="smallest")


@pytest.mark.parametrize("name", ["hopper", "astronaut"])
def test_a_photo_upside_down(analyzer, name, request):
    photo = request.getfixturevalue(name)
    over = np.ascontiguousarray(photo[::-1, ::-1])
    face, notes = choose.choose_face(over, analyzer)
    found, more = choose.place_mesh(over, face, analyzer)
    assert abs(abs(mesh.pose(found.points)[2]) - 180) < 10 and notes + more == []
    turned, face, notes = choose.upright(over, face)
    np.testing.assert_array_equal(turned, photo)
    assert notes == ["the photo is upside down: it was turned by 180 degrees"]
    upright = analyzer.landmarks(photo, analyzer.detect(photo)[0]).points
    assert apart(choose.place_mesh(turned, face, analyzer)[0].points, upright) < 0.01


def test_one_of_two_is_upside_down(analyzer, hopper):
    """As on a playing card: the upright one is found, so the picture is not looked at upside down."""
    found = analyzer.detect(np.concatenate([hopper, hopper[::-1, ::-1]], axis=1))
    across = sorted(float(face.keypoints[1, 0] - face.keypoints[0, 0]) for face in found)
    assert len(found) == 2 and across[0] < -50 and across[1] > 50


@pytest.mark.parametrize("turns", [1, 3])
def test_a_face_on_its_side_stays(analyzer, hopper, turns):
    photo = np.ascontiguousarray(np.rot90(hopper, turns))
    face, _ = choose.choose_face(photo, analyzer)
    same, _, notes = choose.upright(photo, face)
    assert same is photo and notes == []


def test_cloth_is_no_face(analyzer):
    """The suit's folds make a box twice as wide as the face; mesh and detector do not agree on it."""
    picture = load_image(Path(__file__).parents[1] / "cases" / "pano.jpg")
    (face,) = analyzer.detect(picture)
    assert face.score > 0.9 and analyzer.landmarks(picture, face).score > 0.99


def test_no_face_and_the_way_out(analyzer):
    from skimage import data

    cat = data.chelsea()
    with pytest.raises(FaceError, match=r"no face found.*--face-box") as error:
        choose.find_mesh(cat, analyzer)
    assert "\n" not in str(error.value)
    found, _ = choose.find_mesh(cat, analyzer, face_box=(130, 60, 180, 180))
    assert 100 < found.points[:, 0].mean() < 340 and 40 < found.points[:, 1].mean() < 260
    for picture, box in ((np.full((300, 300, 3), 127, np.uint8), (50, 50, 200, 200)), (cat, (120, 20, 200, 200))):
        found, notes = choose.find_mesh(picture, analyzer, face_box=box)
        assert "does not look like a human face" in notes[0]
        mouth = found.points[[mesh.RIGHT_MOUTH_CORNER, mesh.LEFT_MOUTH_CORNER], :2].mean(0)
        np.testing.assert_allclose((mouth - box[:2]) / box[2:], (0.5, 0.72), atol=0.01)


def test_face_box_is_clipped_or_refused(analyzer, hopper, hopper_points):
    found, _ = choose.find_mesh(hopper, analyzer, face_box=(140, 100, 900, 260))
    assert found.points[:, 0].max() < hopper.shape[1]
    for box in ((600, 0, 50, 50), (-50, 10, 40, 40), (10, 10, 0, 50), (10, 10, 50, -5)):
        with pytest.raises(FaceError, match="face box"):
            choose.find_mesh(hopper, analyzer, face_box=box)


def test_small_faces_are_noted_or_refused(analyzer, hopper):
    for scale, kind in ((0.35, "note"), (0.2, "error")):
        small = cv2.resize(hopper, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        if kind == "note":
            _, notes = choose.find_mesh(small, analyzer)
            assert len(notes) == 1 and notes[0].startswith("face is only 7")
        else:
            with pytest.raises(FaceError, match=r"4[0-9] pixels high, expected at least 48"):
                choose.find_mesh(small, analyzer)


@pytest.mark.parametrize(("yaw", "outcome"), [(20, None), (-40, "note"), (40, "note"), (-70, "error"), (70, "error")])
def test_turned_faces(hopper, hopper_points, yaw, outcome):
    centre = hopper_points.mean(0)
    turned = mesh.Landmarks(turn(hopper_points - centre, yaw=yaw) + centre, 1.0)

    class Analyzer:
        def detect(self, rgb):
            return [detect.Face((100, 100, 200, 200), 0.9, np.zeros((6, 2)))]

        def landmarks(self, rgb, found):
            return turned

    if outcome == "error":
        with pytest.raises(FaceError, match=r"turned .* degrees to the side, expected at most 60"):
            choose.find_mesh(hopper, Analyzer())
    else:
        found, notes = choose.find_mesh(hopper, Analyzer())
        assert found is turned and len(notes) == (outcome == "note")
