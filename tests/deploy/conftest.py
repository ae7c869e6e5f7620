"""Bundles that several tests read: toy graphs, sonic-edge for two squares, and a tiny sonic-base."""

import pytest

from tests.support.deploy_toys import export_toys


@pytest.fixture(scope="session")
def toys(tmp_path_factory):
    """Bundle of the toy graphs. Tests that change files must copy it."""
    return export_toys(tmp_path_factory.mktemp("toys") / "bundle")


@pytest.fixture(scope="session")
def edge_bundle(tmp_path_factory):
    """Bundle of sonic-edge for squares of 256 and 512 pixels."""
    from sonic_ms.deploy.export import FORMATS, export
    from sonic_ms.pipeline import unit_table

    return export(
        unit_table("sonic-edge", gears=("256", "512")), tmp_path_factory.mktemp("edge") / "bundle", FORMATS, "fp32"
    )


@pytest.fixture(scope="session")
def base_bundle(tmp_path_factory):
    """Bundle of sonic-base with tiny random networks, by way of a checkpoint and the real converter. 64x64 pixels, two
    frames a chunk of the decoder."""
    from sonic_ms.cli import main
    from sonic_ms.deploy.export import FORMATS, export
    from sonic_ms.pipeline import unit_table
    from tests.support import tiny_checkpoint as make_tiny_checkpoint

    root = tmp_path_factory.mktemp("base")
    make_tiny_checkpoint.write_tree(root / "tree")
    assert main(["convert", "--src", str(root / "tree"), "--dst", str(root / "model")]) == 0
    return export(unit_table(root / "model", gears=("64x64",), chunk=2), root / "bundle", FORMATS, "fp32")


class Open:
    """An engine that several tests use: closing it is left to the end."""

    def __init__(self, engine):
        self._engine = engine

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def close(self):
        pass


@pytest.fixture(scope="session")
def base_engine(base_bundle):
    """Function (name, bundle) -> engine on base_bundle, opened once: graphs are compiled or converted once."""
    from sonic_ms.runtime.choose import open_engine

    engines = {}

    def open_once(name, bundle):
        assert bundle.folder == base_bundle.folder
        if name not in engines:
            engines[name] = open_engine(name, bundle)
        return Open(engines[name])

    yield open_once
    for engine in engines.values():
        engine.close()
