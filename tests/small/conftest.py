"""Drawings of two faces, which every recipe on the painter trains on."""

import pytest

from sonic_ms.train.edge import renderer


@pytest.fixture(scope="session")
def drawings(tmp_path_factory):
    """Folder of drawings, made without the portraits that a download brings."""
    from sonic_ms.small.painter import Drawings

    folder = tmp_path_factory.mktemp("drawings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "real_portraits", list)
        Drawings(folder, 2)
    return folder


@pytest.fixture
def few_faces(monkeypatch):
    """Judge on one face."""
    monkeypatch.setattr("sonic_ms.small.painter.TEST_FACES", 1)
