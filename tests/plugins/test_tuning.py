"""Early stopping by hand-sized rungs and in agreement with Ray Tune's successive halving; random and grid search."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orchestrator_plugins import tuning

from orchestrator.api import Decision, Judged, Known, Search, TrialReport, Tried
from orchestrator.errors import ConfigError
from orchestrator.experiment.search import space
from orchestrator.testing import load_only


class Played:
    """A scheduler and what it has been told."""

    def __init__(self, name, **options):
        self.scheduler, self.before = load_only(tuning).build("scheduler", name, options), []

    def report(self, trial, cost, score) -> Decision:
        report = TrialReport(trial, 1, cost, score)
        decision = self.scheduler.judge(report, tuple(self.before))
        self.before.append(Judged(report, decision))
        return decision

    @property
    def rungs(self):
        entered = [judged for judged in self.before if judged.decision.rung is not None]
        costs = {judged.decision.rung for judged in entered}
        return {c: {j.report.trial: j.report.score for j in entered if j.decision.rung == c} for c in costs}


def _asha(**options):
    return Played("asha", **options)


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
    assert not asha.report("c", 1, 0.0).stop  # half way between the worst and 0 is the worst


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
    rule = Played("median", minimum=2)
    for name, values in {"a": (0.2, 0.4), "b": (0.4, 0.8)}.items():
        for cost, value in zip((10, 20), values, strict=True):
            assert not rule.report(name, cost, value).stop

    # running means at cost 20: a 0.3, b 0.6; their median is 0.45
    assert not rule.report("c", 20, 0.46).stop
    assert rule.report("d", 20, 0.44).stop


def test_median_waits_for_its_grace_and_for_enough_others():
    rule = Played("median", minimum=2, grace=15)
    rule.report("a", 20, 1.0)
    rule.report("b", 20, 1.0)

    assert not rule.report("c", 10, 0.0).stop
    assert rule.report("c", 20, 0.0).stop
    assert not Played("median").report("c", 20, 0.0).stop


def _proposals(name, about):
    searcher, tried = load_only(tuning).build("searcher", name), []
    while len(tried) < 20:
        values = searcher.propose(about, Known(tried=tuple(tried)))
        if values is None:
            break
        tried.append(Tried(index=len(tried), values=values, status="running", scores=None))
    return [one.values for one in tried]


def test_random_draws_what_the_space_draws_and_ends_after_the_budget():
    about = Search(space=space({"a": {"uniform": [0, 1]}}), samples=3, seed=5)

    assert _proposals("random", about) == [about.space.draw(index, 5) for index in range(3)]


def test_grid_proposes_every_combination_whatever_the_budget():
    about = Search(space=space({"a": {"choice": ["x", "y"]}, "b": {"int": [1, 2]}}), samples=1)

    assert [tuple(values.values()) for values in _proposals("grid", about)] == [
        ("x", 1),
        ("x", 2),
        ("y", 1),
        ("y", 2),
    ]


def test_a_grid_without_end_is_refused_at_the_dimension_and_one_too_large_at_the_search():
    grid = load_only(tuning).build("searcher", "grid")

    endless = grid.check_search(Search(space=space({"a": {"uniform": [0, 1]}, "b": {"int": [1, 2]}})))
    large = grid.check_search(Search(space=space({"a": {"int": [1, 1000]}, "b": {"int": [1, 1000]}})))

    assert [(one.path, "list a choice" in one.message) for one in endless] == [("search.a", True)]
    assert [one.path for one in large] == ["search"]
    assert "1000000 points" in large[0].message


def test_options_are_bounded():
    with pytest.raises(ConfigError, match="factor"):
        load_only(tuning).build("scheduler", "asha", {"factor": 1})
