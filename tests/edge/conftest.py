import pytest

from sonic_ms.face import choose


@pytest.fixture(scope="session")
def astronaut_landmarks(astronaut, analyzer):
    """(468, 3) landmarks in pixels, and the side of the square photo."""
    landmarks, _ = choose.find_mesh(astronaut, analyzer)
    return landmarks.points, astronaut.shape[0]
