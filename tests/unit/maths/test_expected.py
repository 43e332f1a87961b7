"""Trials that a design with looks is expected to take: as a race or comparison of normal seeds takes them."""

import pytest

from orchestrator.maths.expected import expected_trials

LOOKS = (3, 5, 8, 12, 20)


def test_what_differs_widely_is_decided_at_the_first_look_and_what_scatters_at_the_last():
    assert expected_trials(LOOKS, (0.0, 1.0), 0.01) == 6
    assert expected_trials(LOOKS, (0.0, 0.0), 0.01, margin=1.0) == 6
    assert expected_trials(LOOKS, (0.0, 0.0), 0.01) == pytest.approx(40, rel=0.05)
    assert expected_trials(LOOKS, (0.0, 1.0, 0.0), 0.01) == pytest.approx(43, rel=0.05)  # the decided arm costs three


def test_a_race_ends_with_the_best_alone_or_with_ties():
    assert expected_trials(LOOKS, (0.0, 0.0, 0.0, 1.0), 0.01, best=True) == 12
    assert expected_trials(LOOKS, (0.0, 0.0, 0.0, 1.0), 0.01, best=True, margin=0.1) == 12
    assert expected_trials(LOOKS, (1.0, 0.0, 0.0, 1.0), 0.01, best=True) == pytest.approx(2 * 3 + 2 * 20, rel=0.05)
    assert expected_trials(LOOKS, (1.0, 0.0, 0.0, 1.0), 0.01, best=True, margin=0.2) == 12


def test_a_typical_comparison_takes_the_seeds_that_were_measured():
    equal = expected_trials(LOOKS, (0.0, 0.0), 0.028, margin=0.05, spread=0.3) / 2
    better = expected_trials(LOOKS, (0.0, 0.10), 0.028, margin=0.05, spread=0.3) / 2

    assert equal == pytest.approx(9.0, abs=0.5)  # docs/benchmarks/calibration.md
    assert better == pytest.approx(4.4, abs=0.5)
