"""sonic-edge as exported: clean on every chip family, and what float16 does to it on real inputs."""

import shutil

import pytest

from sonic_ms.ascend import audit as audit_module
from sonic_ms.ascend.atc import audit_file
from sonic_ms.ascend.audit import audit_bundle
from sonic_ms.ascend.facts import chips
from sonic_ms.ascend.lint import FITS, lint_bundle
from sonic_ms.deploy.bundle import Bundle

pytestmark = [pytest.mark.slow]


def test_fits_every_chip(edge_bundle):
    socs = [soc for soc in chips() if soc != "Ascend910B"]
    verdicts = lint_bundle(edge_bundle, socs)
    assert len(verdicts) == 3 * len(socs)
    assert [one for one in verdicts if one.verdict != FITS or one.findings] == []


@pytest.fixture(scope="module")
def audits(edge_bundle, tmp_path_factory):
    bundle = Bundle.load(shutil.copytree(edge_bundle.folder, tmp_path_factory.mktemp("audit") / "bundle"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_module, "SHORTEST", 8)  # a quarter of the trials; more layers stay
        return bundle, {audit.unit: audit for audit in audit_bundle(bundle, ["edge_audio", "edge_render_256"])}


def test_audit_of_the_encoder(audits):
    audit = audits[1]["edge_audio"]
    assert audit.inputs == "recorded" and audit.good
    assert len(audit.kept) < len(audit.layers) / 4
    assert not {"MatMul", "Conv", "Gemm"} & {layer.op for layer in audit.kept}  # which are most of the work


def test_audit_of_the_renderer_keeps_texel_numbers_in_float32(audits):
    bundle, found = audits
    audit = found["edge_render_256"]
    assert audit.inputs == "recorded" and audit.good
    assert audit.all_fp16_error["square"] == float("inf")  # no float16 counts a million texels
    kept = {layer.name: layer.op for layer in audit.kept}
    assert max(layer.largest for layer in audit.kept) > 1e6  # of 1048576 texels
    assert {"Floor", "Cast", "Mul"} <= set(kept.values())
    assert len(kept) < len(audit.layers) / 2  # of all that an index is computed from, what matters
    convolutions = [layer.name for layer in audit.layers if layer.op == "Conv"]
    in_fp16 = [name for name in convolutions if name not in kept]
    assert len(in_fp16) >= 8 and len(convolutions) == 11  # most; three of 16 channels would add too much error
    assert audit_file(bundle, "edge_render_256").read_text().split() == list(kept)
