"""Tiny bundles for engine tests."""

import pytest

from sonic_ms.bundle import Bundle, file_entry, unit_entry, write_manifest


@pytest.fixture
def make_bundle(tmp_path):
    """Function (units, {unit: {kind: path, or (path, data paths)}}, **manifest) -> Bundle in tmp_path, as the paths."""

    def make(units, files, **manifest):
        entries = {unit.name: unit_entry(unit) for unit in units}
        for name, kinds in files.items():
            for kind, place in kinds.items():
                path, data = place if isinstance(place, tuple) else (place, ())
                entries[name][kind] = file_entry(tmp_path, path, data)
        content = {"format": 1, "model": "test", "precision": "fp32", "mindspore": "2.7.2", "weights_sha256": "0"}
        write_manifest(tmp_path, {**content, "licence": "none", "gear": {}, "units": entries, **manifest})
        return Bundle.load(tmp_path)

    return make
