"""The sweep without any machinery: order, idempotent reports, resumption, tuning before confirmation."""

from __future__ import annotations

import dataclasses
import json
import textwrap

import pytest

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure
from orchestrator.experiment.planner import make
from orchestrator.runners.sweep import Sweep
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result, write_result

ASHA = {"scheduler": {"use": "asha", "grace": 10, "factor": 2}, "metric": "eval/reward/mean"}


def _plan(names="abc", **experiment):
    made = Experiment.model_validate({"name": "p", "environment": {"use": "x"}, **experiment})
    settings = Settings.model_validate({"name": "p", "environment": {"use": "x"}})
    specs = tuple(TrialSpec(id=name, arm=name, seed=0, phase=Phase.CONFIRM, settings=settings) for name in names)
    return Plan(name="p", experiment=made, trials=specs, fingerprint={})


def _metrics(cost, value):
    return {"cost/generated_tokens": float(cost), "eval/reward/mean": value}


def _leave_rows(directory, trial, steps):
    folder = RunFolder(directory).trial(trial)
    folder.path.mkdir(parents=True, exist_ok=True)
    rows = [{"step": s, "kind": "evaluation", "time": 0, "metrics": {"eval/reward/mean": s / 10}} for s in steps]
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _done(sweep, trial, step=4):
    spec = sweep.history.trials[trial].spec
    result = TrialResult(trial=trial, arm=spec.arm, seed=spec.seed, status="done", step=step)
    write_result(RunFolder(sweep.directory).trial(trial), result)
    return sweep.ended(trial, "done")


def test_trials_come_in_the_order_of_the_plan_and_each_once(tmp_path):
    sweep = Sweep(_plan(), tmp_path)

    assert [sweep.next().id for _ in range(3)] == ["a", "b", "c"]
    assert sweep.next() is None
    assert sweep.exhausted


def test_a_report_told_twice_counts_once_and_answers_alike(tmp_path):
    sweep = Sweep(_plan(tune=ASHA), tmp_path)
    for trial in "ab":
        sweep.started(trial)
    assert not sweep.report("a", 2, _metrics(10, 0.5))

    assert sweep.report("b", 2, _metrics(10, 0.4))
    assert sweep.report("b", 2, _metrics(10, 0.9))  # after a restart: what was decided stands

    assert len(sweep.history.reports) == 2
    assert sweep.rungs == {"all": {10.0: {"a": 0.5, "b": 0.4}}}


def test_less_is_better_where_the_experiment_says_so(tmp_path):
    sweep = Sweep(_plan(tune={**ASHA, "mode": "min"}), tmp_path)
    for trial in "ab":
        sweep.started(trial)
    sweep.report("a", 2, _metrics(10, 0.5))

    assert not sweep.report("b", 2, _metrics(10, 0.4))
    assert sweep.report("c", 2, _metrics(10, 0.6))


def test_a_resumed_sweep_hands_out_what_was_running_and_keeps_its_rungs(tmp_path):
    first = Sweep(_plan("abcd", tune=ASHA), tmp_path)
    for _ in "abc":
        first.started(first.next().id)
    first.report("a", 2, _metrics(10, 0.5))
    _done(first, "a")
    first.report("b", 2, _metrics(10, 0.7))
    assert first.report("c", 2, _metrics(10, 0.1))  # killed before the result of c was written
    _leave_rows(tmp_path, "c", [0, 2])
    first.close()

    second = Sweep(_plan("abcd", tune=ASHA), tmp_path)

    assert [second.next().id for _ in range(2)] == ["b", "d"]
    assert second.exhausted
    assert second.rungs == {"all": {10.0: {"a": 0.5, "b": 0.7, "c": 0.1}}}
    stopped = read_result(RunFolder(tmp_path).trial("c"))
    assert (stopped.status, stopped.step, stopped.metrics) == ("stopped", 2, {"eval/reward/mean": 0.2})
    second.started("d")
    assert second.report("d", 2, _metrics(10, 0.4))  # below the median of three, not the first of a new rung


def test_a_result_the_driver_never_heard_of_counts_when_it_resumes(tmp_path):
    first = Sweep(_plan("ab"), tmp_path)
    first.started("a")
    write_result(RunFolder(tmp_path).trial("a"), TrialResult(trial="a", arm="a", seed=0, status="done", step=9))
    first.close()

    second = Sweep(_plan("ab"), tmp_path)

    assert second.next().id == "b"
    assert second.history.trials["a"].status == "done"


def test_a_failed_trial_is_played_again_only_after_a_resumption(tmp_path):
    first = Sweep(_plan("a"), tmp_path)
    first.started(first.next().id)
    first.ended("a", "failed", error=Failure.from_json("no luck"))
    assert first.next() is None
    assert first.results()[0].error == Failure(type="", message="no luck")
    first.close()

    assert Sweep(_plan("a"), tmp_path).next().id == "a"


EXPERIMENT = """
    name: p
    environment: {use: countdown}
    policy: {use: causal_lm, model: {preset: tiny}}
    arms:
      one: {recipe: grpo}
      two: {recipe: rloo}
    seeds: [0, 1]
    search: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-2]}}
    tune: {samples: 3, searcher: %s, seeds: 2, metric: eval/reward/mean}
"""


@pytest.fixture(scope="module")
def registry():
    from orchestrator.api import load_registry

    return load_registry(only=["baselines", "causal_lm", "countdown", "optuna", "tuning"])


def _searching_plan(tmp_path, registry, searcher):
    from orchestrator.experiment.files import load_experiment

    file = tmp_path / "p.yaml"
    file.write_text(textwrap.dedent(EXPERIMENT % searcher))
    return make(load_experiment(file, []), registry)


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_every_arm_is_tuned_alike_and_its_best_sample_is_confirmed(tmp_path, registry, searcher):
    plan = _searching_plan(tmp_path, registry, searcher)
    run = tmp_path / "run"
    sweep, tuned, played = Sweep(plan, run), {}, 0
    while (spec := sweep.next()) is not None:
        if played == 5:  # the driver is killed with a trial under way
            sweep.started(spec.id)
            sweep.close()
            sweep = Sweep(plan, run)
            again = sweep.next()
            assert again == spec
        played += 1
        sweep.started(spec.id)
        lr = spec.searched["optimizer.lr"]
        assert spec.settings.optimizer.lr == lr
        if spec.phase is Phase.TUNE:
            tuned.setdefault((spec.arm, spec.sample), []).append((spec.seed, lr))
        sweep.report(spec.id, 1, _metrics(1, -lr))
        _done(sweep, spec.id)

    assert {arm for arm, _ in tuned} == {"one", "two"}
    assert sorted(sample for arm, sample in tuned if arm == "one") == [0, 1, 2]
    seeds = {seed for trials in tuned.values() for seed, _ in trials}
    assert len(seeds) == 2
    assert seeds.isdisjoint({0, 1})
    confirmed = [e.spec for e in sweep.history.trials.values() if e.spec.phase is Phase.CONFIRM]
    assert sorted((s.arm, s.seed) for s in confirmed) == [("one", 0), ("one", 1), ("two", 0), ("two", 1)]
    for spec in confirmed:
        lowest = min(lr for (arm, _), trials in tuned.items() if arm == spec.arm for _, lr in trials)
        assert spec.searched == {"optimizer.lr": lowest}
    assert len(sweep.results()) == 2 * 3 * 2 + 4
    assert sweep.finished


def test_a_trial_that_failed_twice_says_why_it_failed_the_second_time(tmp_path):
    first = Sweep(_plan("a"), tmp_path)
    first.started(first.next().id)
    first.ended("a", "failed", error=Failure.from_json("no judge"))
    first.close()
    second = Sweep(_plan("a"), tmp_path)
    second.started(second.next().id)

    second.ended("a", "failed", error=Failure.from_json("its worker died"))

    assert str(read_result(RunFolder(tmp_path).trial("a")).error) == "its worker died"


def test_a_trial_whose_metric_vanished_is_not_chosen_on_an_earlier_value(tmp_path, caplog):
    search = {"optimizer.lr": {"choice": [0.1, 0.2]}}
    settings = Settings.model_validate({"name": "p", "environment": {"use": "x"}})
    specs = tuple(
        TrialSpec(
            id=f"tune-a-{index}",
            arm="a",
            seed=1000,
            phase=Phase.TUNE,
            sample=index,
            searched={"optimizer.lr": rate},
            settings=settings,
        )
        for index, rate in enumerate((0.1, 0.2))
    )
    plan = dataclasses.replace(
        _plan("", search=search, tune={"metric": "eval/reward/mean"}), trials=specs, arms={"a": settings}
    )
    sweep = Sweep(plan, tmp_path)
    first, second = sweep.next(), sweep.next()
    for spec, values in ((first, (0.9, None)), (second, (0.1, 0.2))):
        sweep.started(spec.id)
        for step, value in enumerate(values, start=1):
            metrics = {"cost/generated_tokens": 10.0 * step} | ({} if value is None else {"eval/reward/mean": value})
            sweep.report(spec.id, step, metrics)
        _done(sweep, spec.id)

    confirmed = sweep.next()

    assert confirmed.searched == second.searched
    assert f"trial {first.id} measured eval/reward/mean earlier and not at its end" in caplog.text
    sweep.close()
    assert Sweep(plan, tmp_path).history.trials[first.id].value is None


def test_early_stopping_takes_a_metric_that_vanished_for_the_worst_also_after_a_restart(tmp_path):
    sweep = Sweep(_plan("abc", tune=ASHA), tmp_path)
    for trial in "abc":
        sweep.started(trial)
        sweep.report(trial, 0, _metrics(0, 0.9))
    sweep.report("a", 2, _metrics(10, 0.5))

    assert sweep.report("b", 2, {"cost/generated_tokens": 10.0})
    sweep.close()
    again = Sweep(_plan("abc", tune=ASHA), tmp_path)

    assert again.history.trials["b"].stopped
    assert not again.report("c", 2, _metrics(10, 0.4))  # between 0.5 and the worst lies the worst
