"""No mutation of a file that a stranger may hand us ends in anything but an error of ours, in one line."""

import pytest

from tests.support.fuzzing import KINDS, fuzz

CASES = {"plan": 60}  # a network is built for each


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_ends_in_another_error(tmp_path, kind):
    outcome = fuzz(kind, tmp_path, CASES.get(kind, 400))
    assert not outcome.faults, outcome.first
    assert outcome.read >= 3 and outcome.refused >= 20, outcome
