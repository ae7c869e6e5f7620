"""Which face of a photo is animated: the largest, one by its index, or what a box says."""

from sonic_ms.errors import FaceError
from sonic_ms.face.detect import MIN_FACE_HEIGHT, PRESENCE_THRESHOLD, FaceAnalyzer
from sonic_ms.face.mesh import LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER, Landmarks, average_face, face_height, pose

SMALL_FACE_HEIGHT = 96  # pixels; less is worth a note
YAW_NOTE, YAW_LIMIT = 30, 60  # degrees


def choose_face(rgb, face="largest", face_box=None, analyzer=None):
    """Landmarks of the face to animate, and notes for the user: (Landmarks, list of str).

    Args:
        rgb: photo, uint8 (h, w, 3).
        face: "largest", or an index into the faces sorted by size, 0 = largest.
        face_box: (x, y, w, h) in pixels; skips the detector, for drawings and animals.
        analyzer: a FaceAnalyzer to use again.
    Raises:
        FaceError: none found, no such index, box outside the photo, face too small or turned away too far.
    """
    analyzer = analyzer or FaceAnalyzer()
    if face_box is not None:
        found, notes = _from_box(rgb, face_box, analyzer)
    else:
        found, notes = _from_detector(rgb, face, analyzer)
    height = face_height(found.points)
    if height < MIN_FACE_HEIGHT:
        raise FaceError(
            f"face is {height:.0f} pixels high, expected at least {MIN_FACE_HEIGHT}; give a photo with a larger face"
        )
    if height < SMALL_FACE_HEIGHT:
        notes.append(f"face is only {height:.0f} pixels high: the mouth will be soft, {SMALL_FACE_HEIGHT} is better")
    yaw = abs(pose(found.points)[0])
    if yaw > YAW_LIMIT and face_box is None:
        raise FaceError(
            f"face is turned {yaw:.0f} degrees to the side, expected at most {YAW_LIMIT}; give a more frontal photo"
        )
    if yaw > YAW_NOTE:
        notes.append(f"face is turned {yaw:.0f} degrees to the side: beyond {YAW_NOTE} the far side may look wrong")
    return found, notes


def _from_box(rgb, face_box, analyzer):
    x, y, width, height = map(float, face_box)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, rgb.shape[1]), min(y + height, rgb.shape[0])
    if right <= left or bottom <= top:
        raise FaceError(
            f"face box {x:g},{y:g},{width:g},{height:g} lies outside the photo of {rgb.shape[1]}x{rgb.shape[0]} "
            f"pixels; expected x,y,width,height inside it"
        )
    found = analyzer.landmarks(rgb, (left, top, right - left, bottom - top))
    mouth = found.points[[RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER], :2].mean(0)
    if found.score >= PRESENCE_THRESHOLD and left < mouth[0] < right and top < mouth[1] < bottom:
        return found, []
    note = "what is in the face box does not look like a human face: the mouth goes where a face filling it has one"
    return Landmarks(average_face((left, top, right - left, bottom - top)), found.score), [note]


def _from_detector(rgb, face, analyzer):
    faces = analyzer.detect(rgb)
    if not faces:
        raise FaceError(
            "no face found in the photo; give one with a visible face, or mark it yourself with --face-box x,y,w,h "
            "(drawings and animals need that)"
        )
    if face == "largest":
        index = 0
    elif isinstance(face, int) and not isinstance(face, bool):
        index = face
    else:
        raise FaceError(f"face {face!r} is not known; expected 'largest' or an index from 0")
    if not 0 <= index < len(faces):
        raise FaceError(f"face {index} does not exist, the photo has {len(faces)}; expected 0 to {len(faces) - 1}")
    found = analyzer.landmarks(rgb, faces[index])
    if found.score < PRESENCE_THRESHOLD:
        raise FaceError(
            f"the face found is not clear enough to place its features (score {found.score:.2f}, expected at least "
            f"{PRESENCE_THRESHOLD}); give a sharper, unobstructed photo, or use --face-box x,y,w,h"
        )
    if len(faces) > 1 and face == "largest":
        note = f"{len(faces)} faces found, the largest is used; choose another with --face 1 to {len(faces) - 1}"
        return found, [note]
    return found, []
