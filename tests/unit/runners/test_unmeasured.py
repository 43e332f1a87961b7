"""A search by a metric that nothing measures ends at the evaluation that shows it, arm by arm, and says what to do."""

from __future__ import annotations

import dataclasses
import math

import pytest
from orchestrator_plugins import tuning

from orchestrator.contract.plan import Phase
from orchestrator.contract.types import TrialResult
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result, write_result
from orchestrator.testing import load_only, make_plan, make_settings

MEASURED = {"eval/reward/mean": 0.5, "eval/meteor": 0.3, "cost/generated_tokens": 8.0}


@pytest.fixture(scope="module")
def registry():
    return load_only(tuning)


def _sweep(directory, registry, metric, arms=2, **settings):
    plan = make_plan(
        *(make_settings(**settings) for _ in range(arms)),
        search={"optimizer.lr": {"loguniform": [1e-4, 1.0]}},
        tune={"samples": 4, "metric": metric},
    )
    from orchestrator.experiment import planner

    lrs = (0.1, 0.2, 0.3, 0.4)
    trials = tuple(
        planner.tuning_trial(plan, arm, index, {"optimizer.lr": lr}, planner.tuning_seeds(plan)[0])
        for index, lr in enumerate(lrs)
        for arm in plan.arms
    )
    return Sweep(dataclasses.replace(plan, trials=trials), directory, registry=registry)


def _take(sweep):
    spec = sweep.next()
    if spec is not None:
        sweep.started(spec.id)
    return spec


def _end(sweep, spec, metrics):
    result = TrialResult(trial=spec.id, arm=spec.arm, seed=spec.seed, status="done", step=4, metrics=metrics)
    write_result(RunFolder(sweep.directory).trial(spec.id), result)
    return sweep.ended(spec.id, "done")


def test_the_first_evaluation_without_the_metric_ends_the_tuning_of_its_arm(tmp_path, registry, caplog):
    sweep = _sweep(tmp_path, registry, "eval/meteors")
    first, second, third = _take(sweep), _take(sweep), _take(sweep)
    assert (first.arm, second.arm, third.arm) == ("arm0", "arm1", "arm0")

    assert sweep.report(first.id, 0, MEASURED)
    result = sweep.stop(first.id)
    assert not sweep.report(second.id, 0, {"eval/meteors": 0.1, **MEASURED})
    assert sweep.report(third.id, 0, {"eval/meteors": math.nan, **MEASURED})
    also = sweep.stop(third.id)

    assert str(also.error) == f"ended with the tuning of arm arm0: see trial {first.id}"
    assert (result.status, read_result(RunFolder(tmp_path).trial(first.id)).status) == ("failed", "failed")
    assert result.error.message == (
        "arm arm0: its evaluations measure no eval/meteors; did you mean 'eval/meteor'?, which the search compares, so its "
        "tuning ends here. Measured: eval/meteor, eval/reward/mean. Correct tune.metric in the experiment's file and run "
        "that anew; a resumed run keeps its old setting"
    )
    assert caplog.text.count("measure no eval/meteors") == 1
    _end(sweep, second, {})
    rest = []
    while (spec := _take(sweep)) is not None:
        rest.append((spec.arm, spec.phase))
        sweep.report(spec.id, 0, {"eval/meteors": 0.1})
        _end(sweep, spec, {})
    assert rest == [("arm1", Phase.TUNE)] * 3 + [("arm1", Phase.CONFIRM)]
    assert sweep.finished


def test_a_resumed_search_ends_at_the_same_evaluation(tmp_path, registry):
    first = _sweep(tmp_path, registry, "eval/meteors", arms=1)
    spec = _take(first)
    first.report(spec.id, 0, MEASURED)
    first.stop(spec.id)
    first.close()

    again = _sweep(tmp_path, registry, "eval/meteors", arms=1)
    taken = _take(again)
    assert taken.id == spec.id

    assert again.report(spec.id, 0, MEASURED)
    assert again.stop(spec.id).status == "failed"
    assert again.next() is None
    assert again.finished


def test_pass_at_k_where_nothing_says_what_is_right_names_both_ways_out(tmp_path, registry):
    sweep = _sweep(tmp_path, registry, "eval/pass_at_1", arms=1)
    spec = _take(sweep)

    assert sweep.report(spec.id, 0, MEASURED)

    assert "set evaluation.success_at, or let episodes say in the metric `correct`" in sweep.stop(spec.id).error.message


@pytest.mark.parametrize(
    ("metric", "measured"),
    [
        ("eval/episode/moves_to_win", {"eval/episode/return": 1.0}),  # told by episodes that are won
        ("eval/majority_at_4", {"eval/pass_at_4": 0.0}),  # of episodes that answer
        ("eval/pass_at_1", {"eval/episode/correct": 1.0}),  # some episodes were cut off before they could tell
        ("eval/meteor", {"eval/meteor": math.nan}),
    ],
)
def test_a_metric_that_may_come_later_is_waited_for(tmp_path, registry, metric, measured):
    sweep = _sweep(tmp_path, registry, metric, arms=1)
    spec = _take(sweep)

    assert not sweep.report(spec.id, 0, measured)
    assert not sweep.report(spec.id, 2, {metric: 0.5})
    assert _end(sweep, spec, {metric: 0.5}).status == "done"
    late = [_take(sweep) for _ in range(3)]
    for one in late:
        assert not sweep.report(one.id, 0, measured)
        assert _end(sweep, one, measured).status == "done"
    assert [sweep.next().phase, sweep.next()] == [Phase.CONFIRM, None]


def test_a_metric_that_two_whole_trials_did_not_bring_is_waited_for_no_longer(tmp_path, registry):
    sweep = _sweep(tmp_path, registry, "eval/episode/retrun", arms=1)
    first, second, third = (_take(sweep) for _ in range(3))
    measured = {"eval/episode/return": 1.0}
    for spec in (first, second):
        assert not sweep.report(spec.id, 0, measured)

    assert _end(sweep, first, measured).status == "done"
    ended = _end(sweep, second, measured)
    assert sweep.report(third.id, 0, measured)
    sweep.stop(third.id)

    assert ended.status == "failed"
    assert "2 of its trials ended and measured no eval/episode/retrun; did you mean 'eval/episode/return'?" in str(
        ended.error
    )
    assert sweep.next() is None
    assert sweep.finished


def test_confirmations_and_other_procedures_measure_what_they_like(tmp_path, registry):
    sweep = _sweep(tmp_path, registry, "eval/meteor", arms=1, procedure="tournament")
    spec = _take(sweep)

    assert not sweep.report(spec.id, 25, {"wins": 3.0})
    assert not sweep.report(spec.id, 100, {"wins": 3.0, "eval/meteor": 1.0})
    assert _end(sweep, spec, {"eval/meteor": 1.0}).status == "done"
