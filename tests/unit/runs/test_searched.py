"""Which configuration a search chose, and what it knows, in the order it happened."""

from __future__ import annotations

import math

import pytest

from orchestrator.api import Tried
from orchestrator.runs.searched import Outcome, best, front, summarise


def _tried(index, *scores, status="done"):
    return Tried(index=index, values={}, status=status, scores=scores or None, cost=100.0)


def test_the_best_ran_to_its_end_and_is_the_earlier_of_equals():
    assert (
        best([_tried(0, 0.9, status="stopped"), _tried(1, 0.5), _tried(2, 0.5), _tried(3, status="failed")]).index == 1
    )
    assert best([_tried(0, 0.2, status="stopped"), _tried(1, 0.4, status="stopped"), _tried(2, math.nan)]).index == 1
    assert best([_tried(0, status="failed")]) is None


def test_the_front_is_what_no_other_beats_and_the_first_metric_chooses_from_it():
    # 1 is below 0 in both; 3 equals 2; 4 is best in the second alone; 5 is no number in one
    tried = [_tried(0, 0.5, 0.5), _tried(1, 0.4, 0.5), _tried(2, 0.7, 0.2), _tried(3, 0.7, 0.2), _tried(4, 0.1, 0.9)]

    assert [one.index for one in front([*tried, _tried(5, 0.9, math.nan)])] == [0, 2, 3, 4]
    assert best(tried).index == 2
    assert best([*tried, _tried(6, 0.7, 0.1)]).index == 2


def test_a_configuration_over_several_seeds_is_their_mean_and_as_far_as_the_least_of_them():
    assert summarise(3, {}, [Outcome("done", (0.2,), 10.0), Outcome("done", (0.4,), 12.0)]) == Tried(
        index=3, values={}, status="done", scores=(pytest.approx(0.3),), cost=12.0
    )
    assert summarise(0, {}, [Outcome("done", (0.2,), 1.0), Outcome("stopped", (0.1,), 1.0)]).status == "stopped"
    assert summarise(0, {}, [Outcome("done", (0.2,), 1.0), Outcome("pending", None, 0.0)]).status == "running"
    assert summarise(0, {}, [Outcome("running", None, 0.0), Outcome("failed", None, 0.0)]).status == "failed"
