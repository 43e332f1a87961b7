"""The training loop on a real, very small language model: reproducible, resumable, within budget, honest about failure."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from orchestrator.contract.plan import Plan
from orchestrator.contract.types import TrialResult
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.registry import Registry, load_registry
from orchestrator.runners import local
from orchestrator.runs.ledger import read_rows

EXPERIMENT = """
name: small
environment: {use: countdown, numbers: [2, 2], max_number: 4}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
rewards: [{use: exact}]
schedule: {steps: 6, tasks_per_step: 4}
sampling: {max_tokens: 6, max_turns: 1}
optimizer: {lr: 1.0e-2}
evaluation: {every: 2, tasks: 4, samples: 2, k: [1, 2]}
checkpoints: {every: 2, keep: 2}
tracking: {enabled: false}
arms:
  grpo: {recipe: grpo, sampler: {count: 4}}
"""
CLOCK = ("seconds", "time/")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(only=["baselines", "causal_lm", "countdown"])


def make(registry: Registry, *overrides: str) -> Plan:
    return plans.make(parse_experiment(EXPERIMENT, overrides), registry)


def run(plan: Plan, directory: Path, registry: Registry) -> TrialResult:
    [result] = local.run(plan, directory, registry)
    return result


def rows(directory: Path) -> list[dict]:
    """Metric rows without wall-clock fields."""
    return [
        {
            "step": row["step"],
            "kind": row["kind"],
            "metrics": {k: v for k, v in row["metrics"].items() if not any(part in k for part in CLOCK)},
        }
        for row in read_rows(next((directory / "trials").iterdir()) / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def unbroken(registry, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("unbroken")
    assert run(make(registry), directory, registry).status == "done"
    return directory


def test_the_same_seed_gives_the_same_metrics(registry, unbroken, tmp_path):
    run(make(registry), tmp_path, registry)

    assert rows(tmp_path) == rows(unbroken)


def test_another_seed_gives_other_metrics(registry, unbroken, tmp_path):
    run(make(registry, "seeds=[1]"), tmp_path, registry)

    assert rows(tmp_path) != rows(unbroken)


def test_rows_hold_every_step_once_and_evaluations_between(unbroken):
    found = [(row["step"], row["kind"]) for row in rows(unbroken)]

    assert found == [
        (0, "evaluation"),
        (1, "step"),
        (2, "step"),
        (2, "evaluation"),
        (3, "step"),
        (4, "step"),
        (4, "evaluation"),
        (5, "step"),
        (6, "step"),
        (6, "evaluation"),
    ]


def test_training_and_acting_agree_on_every_step(unbroken):
    steps = [row["metrics"] for row in rows(unbroken) if row["kind"] == "step"]
    gaps = [step["train/act_train_logprob_gap"] for step in steps if not step["train/idle_updates"]]

    assert len(steps) == 6
    assert gaps
    assert max(gaps) < 1e-4


def test_costs_add_up(unbroken):
    steps = [row["metrics"] for row in rows(unbroken) if row["kind"] == "step"]
    evaluations = [row["metrics"] for row in rows(unbroken) if row["kind"] == "evaluation"]

    per_step = [metrics["rollout/tokens/mean"] * 16 for metrics in steps]
    assert steps[-1]["cost/generated_tokens"] == pytest.approx(sum(per_step))
    assert steps[-1]["cost/trained_tokens"] == steps[-1]["cost/generated_tokens"]
    assert evaluations[-1]["cost/evaluation_tokens"] == sum(metrics["eval/tokens"] for metrics in evaluations)
    assert steps[-1]["cost/prompt_tokens"] > 0


class Killed(BaseException):
    """Stands for a process that dies: nothing catches it."""


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_trial_that_dies_continues_as_if_it_had_not(registry, unbroken, tmp_path, monkeypatch, step):
    from orchestrator.training import loop

    take_a_step = loop.Training.one_step

    def die(self):
        if self.progress.step + 1 == step:
            raise Killed
        return take_a_step(self)

    monkeypatch.setattr(loop.Training, "one_step", die)
    with pytest.raises(Killed):
        run(make(registry), tmp_path, registry)
    monkeypatch.undo()

    result = run(make(registry), tmp_path, registry)

    assert result.status == "done"
    assert rows(tmp_path) == rows(unbroken)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_trial_that_dies_around_its_last_evaluation_still_has_it_once(registry, tmp_path, monkeypatch, moment):
    from orchestrator.training import loop

    plan = make(registry, "evaluation.every=4")
    whole = run(plan, tmp_path / "whole", registry)
    evaluate = loop.Training._evaluate

    def die(self):
        if self.progress.step == 6 and moment == "before":
            raise Killed
        metrics = evaluate(self)
        if self.progress.step == 6:
            raise Killed
        return metrics

    monkeypatch.setattr(loop.Training, "_evaluate", die)
    with pytest.raises(Killed):
        run(plan, tmp_path / "cut", registry)
    monkeypatch.undo()

    result = run(plan, tmp_path / "cut", registry)

    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert result.metrics.keys() == whole.metrics.keys()


def test_a_cut_off_checkpoint_is_written_anew(registry, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    [trial] = (tmp_path / "trials").iterdir()
    (trial / "result.json").unlink()
    model = trial / "checkpoints" / "step-000006" / "model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-100])

    run(make(registry), tmp_path, registry)

    assert model.read_bytes() == whole


def test_a_cut_off_checkpoint_costs_steps_but_no_numbers(registry, unbroken, tmp_path, caplog):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    [trial] = (tmp_path / "trials").iterdir()
    (trial / "result.json").unlink()
    model = trial / "checkpoints" / "step-000006" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-100])

    result = run(make(registry), tmp_path, registry)

    assert result.status == "done"
    assert "step-000006" in caplog.text
    assert rows(tmp_path) == rows(unbroken)


def test_a_disk_that_fills_up_stops_no_training(registry, unbroken, tmp_path, monkeypatch, caplog):
    from orchestrator.runs import checkpoint

    write = checkpoint.save_file

    def full(tensors, path):
        if "step-000004" in str(path):
            raise OSError(28, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with caplog.at_level(logging.WARNING):
        result = run(make(registry), tmp_path, registry)

    assert result.status == "done"
    assert "checkpoint of step 4 could not be written" in caplog.text
    [trial] = (tmp_path / "trials").iterdir()
    assert [path.name for path in sorted((trial / "checkpoints").iterdir())] == ["step-000002", "step-000006"]
    assert rows(tmp_path) == rows(unbroken)


@pytest.mark.parametrize("recipe", ["grpo", "rloo"])
def test_every_arm_stops_within_one_step_of_the_budget(registry, tmp_path, recipe):
    plan = make(registry, f"arms.grpo.recipe={recipe}", "schedule.steps=100", "budget.generated_tokens=400")

    result = run(plan, tmp_path, registry)

    tokens = [row["metrics"]["cost/generated_tokens"] for row in rows(tmp_path) if row["kind"] == "step"]
    assert result.step == len(tokens) < 100
    assert tokens[-1] >= 400 > tokens[-2]


def test_micro_batches_do_not_change_the_numbers(registry, unbroken, tmp_path):
    run(make(registry, "update.micro_batch_rows=3"), tmp_path, registry)

    for cut, whole in zip(rows(tmp_path), rows(unbroken), strict=True):
        assert cut["metrics"] == pytest.approx(whole["metrics"], rel=2e-4, abs=2e-5)


def test_losses_that_stay_non_finite_fail_the_trial_with_the_batch_saved(registry, tmp_path, monkeypatch):
    from orchestrator_plugins.baselines.objectives import Clipped

    terms = Clipped.terms
    calls = []

    def poisoned(self, batch, current):
        calls.append(1)
        found = terms(self, batch, current)
        if len(calls) == 2 or len(calls) > 4:
            from dataclasses import replace

            return replace(found, loss=tuple(replace(term, values=term.values * torch.nan) for term in found.loss))
        return found

    monkeypatch.setattr(Clipped, "terms", poisoned)
    result = run(
        make(registry, "update.non_finite_limit=2", "schedule.steps=10", "objective.entropy_weight=1e-3"),
        tmp_path,
        registry,
    )

    assert result.status == "failed"
    assert "2 updates in a row had a loss or gradient that is not finite" in str(result.error)
    [trial] = (tmp_path / "trials").iterdir()
    assert (trial / "non-finite-batch.safetensors").exists()
    skipped = [row["metrics"]["train/skipped_updates"] for row in rows(tmp_path) if row["kind"] == "step"]
    assert skipped == [0, 1, 1, 1, 2]  # one passed over and trained on; then two in a row end it


def test_weights_placed_between_rounds_reach_what_acts_also_when_a_round_is_one_step(registry, tmp_path, monkeypatch):
    from orchestrator_plugins.baselines.objectives import Clipped
    from orchestrator_plugins.causal_lm.policy import CausalLMPolicy

    def weights(policy):
        return [parameter.detach().clone() for parameter in policy.module.parameters()]

    refresh, act = CausalLMPolicy.refresh, CausalLMPolicy.act
    fresh = []

    def remember(self):
        self.refreshed = weights(self)
        return refresh(self)

    def compare(self, contexts, sampling):
        fresh.append(all(torch.equal(a, b) for a, b in zip(self.refreshed, weights(self), strict=True)))
        return act(self, contexts, sampling)

    def further(self, trained, previous):
        return {name: tensor + 0.01 for name, tensor in trained.items()}

    monkeypatch.setattr(Clipped, "between_rounds", further, raising=False)
    monkeypatch.setattr(CausalLMPolicy, "refresh", remember)
    monkeypatch.setattr(CausalLMPolicy, "act", compare)

    result = run(make(registry, "evaluation.first=false", "evaluation.every=0"), tmp_path, registry)

    assert result.status == "done"
    assert len(fresh) > 6
    assert all(fresh)


def test_a_procedure_that_returns_no_result_fails_its_trial(registry, tmp_path, monkeypatch):
    from orchestrator.training import loop

    monkeypatch.setattr(loop.Training, "run", lambda self: {"status": "done"})

    result = run(make(registry), tmp_path, registry)

    assert result.status == "failed"
    assert "run_trial returned a dict; expected a TrialResult" in str(result.error)


def test_too_many_failing_episodes_fail_the_trial_naming_the_plugin(registry, tmp_path, monkeypatch):
    from orchestrator_plugins.countdown.environment import Countdown

    start = Countdown.start

    def sometimes(self, task, seed):
        if seed % 2:
            raise ConnectionError("the game server is gone")
        return start(self, task, seed)

    monkeypatch.setattr(Countdown, "start", sometimes)
    strict = run(make(registry, "evaluation.first=false"), tmp_path / "strict", registry)
    lenient = run(make(registry, "failures.rollout_share=0.9"), tmp_path / "lenient", registry)

    assert strict.status == "failed"
    assert "plugin 'countdown' (rl-orchestrator" in str(strict.error)
    assert "ConnectionError: the game server is gone" in str(strict.error)
    assert lenient.status == "done"
    steps = [row["metrics"] for row in rows(tmp_path / "lenient") if row["kind"] == "step"]
    assert all(0 < metrics["rollout/failed"] < 16 for metrics in steps)
    assert steps[-1]["cost/failed_rollouts"] == sum(metrics["rollout/failed"] for metrics in steps)


def test_too_many_failing_rewards_fail_the_trial_naming_their_plugin(registry, tmp_path, monkeypatch):
    from orchestrator_plugins.baselines.rewards import Exact

    score = Exact.score

    def sometimes(self, group):
        if group.task.id.endswith("1"):
            raise TimeoutError("the judge does not answer")
        return score(self, group)

    monkeypatch.setattr(Exact, "score", sometimes)
    strict = run(make(registry, "evaluation.first=false"), tmp_path / "strict", registry)
    lenient = run(make(registry, "failures.rollout_share=0.5"), tmp_path / "lenient", registry)

    assert strict.status == "failed"
    assert "4 of 16 rollouts failed" in str(strict.error)
    assert "plugin 'baselines' (rl-orchestrator" in str(strict.error)
    assert "TimeoutError: the judge does not answer" in str(strict.error)
    assert lenient.status == "done"
    steps = [row["metrics"] for row in rows(tmp_path / "lenient") if row["kind"] == "step"]
    assert [metrics["rollout/groups"] for metrics in steps[:2]] == [3, 4]  # tasks 0 to 3, then 4 to 7


def test_the_start_phase_runs_once_for_all_arms_and_seeds(registry, tmp_path):
    plan = make(
        registry,
        "start.recipe=sft",
        "start.schedule.steps=3",
        "arms.rloo={recipe: rloo}",
        "seeds=[0, 1]",
        "schedule.steps=1",
    )

    results = local.run(plan, tmp_path, registry)

    assert [result.status for result in results] == ["done"] * 4
    phases = [path for path in (tmp_path / "start").iterdir() if path.is_dir()]
    assert len(phases) == 1
    assert len([row for row in read_rows(phases[0] / "metrics.jsonl") if row["kind"] == "step"]) == 3
    first = {
        tuple(sorted(json.loads((trial / "metrics.jsonl").read_text().splitlines()[0])["metrics"].items()))
        for trial in (tmp_path / "trials").iterdir()
        if trial.name.endswith("s0")
    }
    evaluated = {dict(row)["eval/reward/mean"] for row in first}
    assert len(evaluated) == 1  # both arms start from the same weights and are asked the same


def test_a_start_phase_without_a_checkpoint_says_what_to_remove(registry, tmp_path):
    plan = make(registry, "start.recipe=sft", "start.schedule.steps=1", "schedule.steps=1")
    run(plan, tmp_path, registry)
    [phase] = [path for path in (tmp_path / "start").iterdir() if path.is_dir()]
    shutil.rmtree(phase / "checkpoints")
    shutil.rmtree(tmp_path / "trials")

    result = run(plan, tmp_path, registry)

    assert result.status == "failed"
    assert f"left no checkpoint in {phase / 'checkpoints'}; remove {phase}" in str(result.error)


def test_a_finished_run_is_left_alone(registry, unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)

    def written():
        return {
            path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"
        }

    before = written()

    run(make(registry), tmp_path, registry)

    assert written() == before
