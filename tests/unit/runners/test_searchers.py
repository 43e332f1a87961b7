"""Proposals follow from the history alone; the best configuration is chosen as documented."""

from __future__ import annotations

import math

import pytest

from orchestrator.experiment.search import space
from orchestrator.runners.searchers import Tried, best, suggest, summarise

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
    return Tried(index=index, values=chosen, status=status, value=value, cost=100.0)


def _suggest(tried, **changes):
    pytest.importorskip("optuna")
    return suggest(SPACE, tried, **{"samples": 12, "seed": 0, "arm": "a", "index": len(tried), **changes})


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
        return sum(-t.value for t in tried) / len(tried)

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


def test_the_best_ran_to_its_end_and_is_the_earlier_of_equals():
    assert best([_tried(0, 0.9, "stopped"), _tried(1, 0.5), _tried(2, 0.5), _tried(3, None, "failed")]).index == 1
    assert best([_tried(0, 0.2, "stopped"), _tried(1, 0.4, "stopped"), _tried(2, math.nan)]).index == 1
    assert best([_tried(0, None, "failed")]) is None


def test_a_configuration_over_several_seeds_is_their_mean_and_as_far_as_the_least_of_them():
    assert summarise(3, {}, [("done", 0.2, 10.0), ("done", 0.4, 12.0)]) == Tried(
        index=3, values={}, status="done", value=pytest.approx(0.3), cost=12.0
    )
    assert summarise(0, {}, [("done", 0.2, 1.0), ("stopped", 0.1, 1.0)]).status == "stopped"
    assert summarise(0, {}, [("done", 0.2, 1.0), ("pending", None, 0.0)]).status == "running"
    assert summarise(0, {}, [("running", None, 0.0), ("failed", None, 0.0)]).status == "failed"
