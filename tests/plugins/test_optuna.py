"""Optuna's samplers and pruners: proposals follow from the history, options are judged, trials meet at equal cost."""

from __future__ import annotations

import math
import sys

import pytest

pytest.importorskip("optuna")

from orchestrator_plugins import optuna as plugin

from orchestrator.api import Goal, Judged, Known, Proposed, Search, TrialEnd, TrialReport, Tried
from orchestrator.errors import ConfigError
from orchestrator.experiment.search import space
from orchestrator.testing import check_component, load_only
from orchestrator.testing.checks.searcher import check_searcher

REGISTRY = load_only(plugin)
SPACE = space(
    {
        "optimizer.lr": {"loguniform": [1e-4, 1.0]},
        "sampler.count": {"choice": [2, 4, 8]},
        "schedule.epochs": {"int": [1, 4]},
        "objective.clip": {"quniform": [0.1, 0.3, 0.1]},
    }
)


def _tried(index, value, status="done", **values):
    chosen = {"optimizer.lr": 0.01, "sampler.count": 2, "schedule.epochs": 1, "objective.clip": 0.2, **values}
    return Tried(index=index, values=chosen, status=status, scores=None if value is None else (value,), cost=100.0)


def _suggest(tried, samples=12, seed=0, arm="a", **options):
    about = Search(space=SPACE, samples=samples, seed=seed, arm=arm)
    return REGISTRY.build("searcher", "optuna", options).propose(about, Known(tried=tuple(tried)))


def test_the_same_history_gives_the_same_proposal_and_another_seed_or_arm_another():
    history = [_tried(i, 0.1 * i, **{"optimizer.lr": 10.0**-i}) for i in range(4)]

    assert _suggest(history) == _suggest(history)
    assert _suggest(history) != _suggest(history, seed=1)
    assert _suggest(history) != _suggest(history, arm="b")


def test_proposals_are_within_the_space_and_of_its_types():
    history = []
    for index in range(12):
        values = _suggest(history)
        assert 1e-4 <= values["optimizer.lr"] <= 1.0
        assert values["sampler.count"] in (2, 4, 8)
        assert values["schedule.epochs"] in (1, 2, 3, 4)
        assert values["objective.clip"] in (0.1, 0.2, 0.3)
        history.append(_tried(index, -abs(math.log10(values["optimizer.lr"]) + 2), **values))

    assert len({tuple(t.values.items()) for t in history}) == 12


def test_later_proposals_gather_where_values_were_high():
    history = []
    for index in range(40):
        lr = _suggest(history, samples=30)["optimizer.lr"]
        history.append(_tried(index, -abs(math.log10(lr) + 2), **{"optimizer.lr": lr}))  # best at 0.01

    def distance(tried):
        return sum(-t.score for t in tried) / len(tried)

    assert distance(history[25:]) < 0.6 * distance(history[:10])


def test_proposals_bear_with_failed_stopped_and_running_trials():
    history = [
        _tried(0, None, "failed"),
        _tried(1, 0.3, "stopped"),
        _tried(2, None, "running"),
        _tried(3, math.nan),
        _tried(4, 0.5),
    ]

    assert set(_suggest(history, samples=3)) == {d.path for d in SPACE.dimensions}


def test_proposals_are_those_of_earlier_versions():
    history = [_tried(i, 0.1 * i, **{"optimizer.lr": 10.0**-i}) for i in range(5)]
    history.append(_tried(5, 0.3, "stopped"))

    assert _suggest(history) == {
        "optimizer.lr": 0.0005789260759062698,
        "sampler.count": 2,
        "schedule.epochs": 3,
        "objective.clip": 0.3,
    }
    assert _suggest([]) == {
        "optimizer.lr": 0.011686020550881936,
        "sampler.count": 8,
        "schedule.epochs": 2,
        "objective.clip": 0.1,
    }


@pytest.mark.parametrize(
    ("options", "path", "expected"),
    [
        ({"sampler": "TPESampelr"}, "searcher.sampler", "did you mean 'TPESampler'?"),
        ({"sampler": "BaseSampler"}, "searcher.sampler", "no sampler 'BaseSampler'"),
        ({"n_startup_trails": 3}, "searcher", "did you mean 'n_startup_trials'?"),
        ({"options": {"n_startup_trails": 3}}, "searcher", "did you mean 'n_startup_trials'?"),
        ({"samplre": "GPSampler"}, "searcher", "did you mean 'sampler'?"),
        ({"seed": 3}, "searcher.seed", "set tune.seed"),
        ({"sampler": "GridSampler"}, "searcher", "use {use: grid}"),
        ({"gamma": 3}, "searcher.gamma", "takes a Python object"),
        ({"sampler": "QMCSampler", "qmc_type": "hamilton"}, "searcher", "refuses its options"),
        ({"sampler": "PartialFixedSampler", "fixed_params": {}}, "searcher", "needs base_sampler"),
    ],
)
def test_what_a_sampler_does_not_take_is_refused_with_the_nearest_it_does(options, path, expected):
    problem = _refused("searcher", "optuna", options)

    assert problem.path == path
    assert expected in problem.message


def test_a_sampler_whose_package_is_missing_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)  # as where it is not installed

    (said,) = _said({"sampler": "CmaEsSampler"}, {"a": {"uniform": [0, 1]}, "b": {"uniform": [0, 1]}})

    assert said == "CmaEsSampler needs the package cmaes, which is not installed; pip install cmaes"


def _refused(role, name, options):
    """The one problem for which a component is not built."""
    with pytest.raises(ConfigError) as caught:
        REGISTRY.build(role, name, options)
    (problem,) = caught.value.problems
    return problem


def _said(options, search, goals=1):
    about = Search(space=space(search), goals=tuple(Goal(f"eval/{place}", "max") for place in range(goals)))
    return [one.message for one in REGISTRY.build("searcher", "optuna", options).check_search(about)]


def test_a_sampler_says_which_searches_it_cannot_do_with():
    real, words = {"uniform": [0, 1]}, {"choice": ["x", "y"]}

    assert _said({}, {"a": real, "b": words}) == []
    assert _said({"sampler": "GPSampler"}, {"a": real, "b": words}, goals=2) == []
    assert "BruteForceSampler cannot do with this search" in _said({"sampler": "BruteForceSampler"}, {"a": real})[0]
    assert _said({"sampler": "BruteForceSampler"}, {"a": words}) == []


def test_covariance_adaptation_says_that_it_draws_words_at_random():
    pytest.importorskip("cmaes")
    real, words = {"uniform": [0, 1]}, {"choice": ["x", "y"]}

    assert _said({"sampler": "CmaEsSampler"}, {"a": real, "b": real}) == []
    assert "CmaEsSampler" in _said({"sampler": "CmaEsSampler"}, {"a": real, "b": real, "c": words})[0]
    assert "CmaEsSampler" in _said({"sampler": "CmaEsSampler"}, {"a": real, "b": real}, goals=2)[0]


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "TPESampler", "multivariate": True},
        {"sampler": "GPSampler", "n_startup_trials": 4},
        {"sampler": "NSGAIISampler", "population_size": 2},
        {"sampler": "QMCSampler"},
        {"sampler": "CmaEsSampler"},
        {"sampler": "PartialFixedSampler", "base_sampler": "TPESampler", "fixed_params": {"schedule.epochs": 2}},
    ],
    ids=lambda options: options["sampler"],
)
def test_samplers_with_and_without_state_propose_the_same_after_a_killed_driver(options):
    if options["sampler"] == "CmaEsSampler":
        pytest.importorskip("cmaes")
    check_component(REGISTRY.describe("searcher", "optuna"), options)


def test_two_metrics_are_searched_at_once():
    problems = check_searcher(lambda: REGISTRY.build("searcher", "optuna", {}), goals=2)

    assert problems == []


def test_a_proposal_of_the_journal_stands_where_optuna_proposes_another_today(caplog):
    about = Search(space=SPACE, samples=12)
    searcher = REGISTRY.build("searcher", "optuna", {"sampler": "NSGAIISampler"})
    first = searcher.propose(about, Known())
    other = {**first, "schedule.epochs": first["schedule.epochs"] % 4 + 1}
    tried = Tried(index=0, values=other, status="running", scores=None)

    searcher.propose(about, Known(tried=(tried,), events=(Proposed(0, other),)))

    assert "the journal stands" in caplog.text


# --- pruners ----------------------------------------------------------------------------------------------


class Played:
    """A pruner and what it has been told."""

    def __init__(self, **options):
        self.scheduler, self.before = REGISTRY.build("scheduler", "optuna_pruner", options), []

    def report(self, trial, cost, score):
        report = TrialReport(trial, 1, cost, score)
        decision = self.scheduler.judge(report, tuple(self.before))
        self.before.append(Judged(report, decision))
        return decision.stop

    def play(self, trial, curve, offset=0.0):
        for place, score in enumerate(curve, start=1):
            assert not self.report(trial, 100.0 * place + offset, score)
        self.before.append(TrialEnd(trial, "done"))


def test_trials_are_compared_at_equal_tokens_though_they_report_at_costs_of_their_own():
    median = Played(pruner="MedianPruner", n_startup_trials=2)
    median.play("a", (0.2, 0.4, 0.6), offset=-3.0)
    median.play("b", (0.4, 0.6, 0.8), offset=4.0)

    # at 150 tokens a stood at 0.2 (from 97) and b at 0.4 (from 104): the median is 0.3
    assert not median.report("c", 150.0, 0.31)
    assert median.report("d", 150.0, 0.29)
    assert not median.report("e", 90.0, 0.0)  # neither had reported by then


def test_a_trial_is_stopped_where_a_paired_test_says_it_is_worse():
    wilcoxon = Played(pruner="WilcoxonPruner", p_threshold=0.05, n_startup_steps=4)
    wilcoxon.play("a", tuple(0.5 + 0.01 * place for place in range(12)), offset=1.0)

    stops = [wilcoxon.report("b", 102.0 + 100.0 * place, 0.1 + 0.01 * place) for place in range(8)]

    # ranks of n differences of one sign: p is 2^-n one-sided, below 0.05 from the fifth on
    assert stops.index(True) == 4


def test_pruners_that_write_on_trials_are_told_again_what_they_wrote():
    halving = {"pruner": "SuccessiveHalvingPruner", "min_resource": 100, "reduction_factor": 2}

    check_component(REGISTRY.describe("scheduler", "optuna_pruner"), halving)
    check_component(
        REGISTRY.describe("scheduler", "optuna_pruner"),
        {"pruner": "HyperbandPruner", "min_resource": 100, "max_resource": 500, "reduction_factor": 2},
    )
    check_component(
        REGISTRY.describe("scheduler", "optuna_pruner"),
        {"pruner": "PatientPruner", "wrapped_pruner": halving, "patience": 1},
    )
    played = Played(**halving)
    assert not played.report("a", 100.0, 0.5)
    assert played.report("b", 100.0, 0.4)
    assert not played.report("c", 100.0, 0.6)


@pytest.mark.parametrize(
    ("options", "path", "expected"),
    [
        ({"pruner": "MedianPrunner"}, "scheduler.pruner", "did you mean 'MedianPruner'?"),
        ({"n_startup_trails": 3}, "scheduler", "did you mean 'n_startup_trials'?"),
        ({"pruner": "PercentilePruner"}, "scheduler", "needs percentile"),
        ({"pruner": "WilcoxonPruner", "p_threshold": 2.0}, "scheduler", "refuses its options"),
        ({"pruner": "PatientPruner", "wrapped_pruner": 3, "patience": 1}, "scheduler", "is a pruner"),
    ],
)
def test_what_a_pruner_does_not_take_is_refused_with_the_nearest_it_does(options, path, expected):
    problem = _refused("scheduler", "optuna_pruner", options)

    assert problem.path == path
    assert expected in problem.message


def test_thresholds_are_refused_where_less_is_better():
    pruner = REGISTRY.build("scheduler", "optuna_pruner", {"pruner": "ThresholdPruner", "lower": 0.1})

    assert pruner.check_search(Search(space=SPACE)) == []
    (problem,) = pruner.check_search(Search(space=SPACE, goals=(Goal("eval/loss", "min"),)))
    assert problem.path == "tune.scheduler"
