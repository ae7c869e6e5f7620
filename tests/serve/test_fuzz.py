"""A short run of fuzz.py."""

import pytest

from sonic_ms.serve import process
from tests.serve import fuzz


@pytest.mark.slow
def test_odd_requests_end_in_an_answer_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "WORKER", process.WORKER)  # restored afterwards
    with fuzz.served(tmp_path / "data") as (url, service):
        assert fuzz.from_the_schema(url, 4) > 50
        statuses = fuzz.damaged_forms(url, 150)
        assert set(statuses) >= {202, 422} and max(statuses) < 500
        assert not fuzz.left_behind(service)
