"""Bundles that several tests read: toy graphs, and sonic-edge for one small square."""

import pytest
from deploy_toys import export_toys


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """Bundle of the toy graphs. Tests that change files must copy it."""
    return export_toys(tmp_path_factory.mktemp("toys") / "bundle")


@pytest.fixture(scope="session")
def edge_bundle(tmp_path_factory):
    """Bundle of sonic-edge for squares of 256 pixels."""
    from sonic_ms.export import export_model

    return export_model("sonic-edge", tmp_path_factory.mktemp("edge") / "bundle", gears=("256",))
