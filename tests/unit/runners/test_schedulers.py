"""Early stopping: hand-sized rungs, agreement with Ray Tune's successive halving, replay."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.settings import AshaScheduler, MedianScheduler
from orchestrator.runners.schedulers import Asha, Median, make


def _asha(**options):
    return Asha(AshaScheduler(use="asha", **options))


def test_the_best_half_of_a_rung_goes_on():
    asha = _asha(grace=10, factor=2)

    stops = [asha.report(name, 10, value).stop for name, value in [("a", 0.5), ("b", 0.4), ("c", 0.45), ("d", 0.6)]]

    # medians of those before: none, 0.5, 0.45, 0.45
    assert stops == [False, True, False, False]
    assert asha.rungs == {10: {"a": 0.5, "b": 0.4, "c": 0.45, "d": 0.6}}


def test_only_the_highest_rung_reached_counts_and_counts_once():
    asha = _asha(grace=10, factor=2)

    verdicts = [asha.report("a", cost, 1.0).rung for cost in (5, 45, 50, 79, 80)]

    assert verdicts == [None, 40, None, None, 80]


def test_the_lowest_rung_follows_from_the_first_report_after_training_began():
    asha = _asha()

    asha.report("a", 0, 0.1)
    verdict = asha.report("a", 1000, 0.2)

    assert verdict.rung == pytest.approx(900)


def test_a_value_that_is_no_number_is_the_worst():
    asha = _asha(grace=1, factor=2)
    asha.report("a", 1, 0.0)

    assert asha.report("b", 1, math.nan).stop
    assert asha.rungs[1]["b"] == -math.inf


reports = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(1, 300), st.floats(-5, 5, allow_nan=False, width=16)), max_size=60
)


@given(reports, st.sampled_from([2.0, 3.0, 4.0]))
def test_asha_decides_as_ray_tune_does(told, factor):
    async_hyperband = pytest.importorskip("ray.tune.schedulers.async_hyperband")
    bracket = async_hyperband._Bracket(10, 10 * factor**6, factor, 0, stop_last_trials=False)
    asha = _asha(grace=10, factor=factor)

    class Trial:
        def __init__(self, name):
            self.trial_id = name

    for name, cost, value in told:
        expected = bracket.on_result(Trial(name), cost, value)
        assert asha.report(name, cost, value).stop == (expected == "STOP")


@given(reports)
def test_replaying_reports_rebuilds_the_rungs(told):
    first, second = _asha(factor=2), _asha(factor=2)

    decided = [first.report(*report) for report in told]

    assert [second.report(*report) for report in told] == decided
    assert second.rungs == first.rungs


def test_median_stops_a_trial_whose_best_is_below_the_others_running_means():
    rule = Median(MedianScheduler(use="median", minimum=2))
    for name, values in {"a": (0.2, 0.4), "b": (0.4, 0.8)}.items():
        for cost, value in zip((10, 20), values, strict=True):
            assert not rule.report(name, cost, value).stop

    # running means at cost 20: a 0.3, b 0.6; their median is 0.45
    assert not rule.report("c", 20, 0.46).stop
    assert rule.report("d", 20, 0.44).stop


def test_median_waits_for_its_grace_and_for_enough_others():
    rule = Median(MedianScheduler(use="median", minimum=2, grace=15))
    rule.report("a", 20, 1.0)
    rule.report("b", 20, 1.0)

    assert not rule.report("c", 10, 0.0).stop
    assert rule.report("c", 20, 0.0).stop
    assert not Median(MedianScheduler(use="median")).report("c", 20, 0.0).stop


def test_no_scheduler_is_none():
    assert make("none") is None
