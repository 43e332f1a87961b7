"""APO in whole trials: what rounds start from, resumption, micro-batches."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from orchestrator_plugins.apo.objective import Apo

from orchestrator.api import ConfigError, load_registry
from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.runners import local
from orchestrator.runs.checkpoint import read_checkpoint
from orchestrator.runs.ledger import read_rows


@cache
def registry():
    return load_registry(["apo", "preferences", "sppo", "baselines", "causal_lm", "countdown"])


EXPERIMENT = """
name: small
environment: {use: countdown, numbers: [2, 2], max_number: 4}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
rewards: [{use: preference, function: "judge_of_apo:like"}]
schedule: {steps: 6, tasks_per_step: 3, steps_per_round: 2}
sampling: {max_tokens: 6, max_turns: 1}
optimizer: {lr: 1.0e-2}
evaluation: {every: 1, tasks: 2, samples: 2, k: [1], success_at: 0.5}
checkpoints: {every: 1, keep: 9}
tracking: {enabled: false}
recipe: apo_dpo
objective: {momentum: 0.6}
"""
CLOCK = ("seconds", "time/")


JUDGE = "def like(task, answers):\n    return [sum(map(ord, answer)) % 17 / 4 for answer in answers]\n"


@pytest.fixture(autouse=True)
def judge(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("judges")
    (folder / "judge_of_apo.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(folder))
    yield
    sys.modules.pop("judge_of_apo", None)


def make(*overrides):
    return plans.make(parse_experiment(EXPERIMENT, overrides), registry(), imports=True)


def run(plan, directory) -> Path:
    [result] = local.run(plan, directory, registry())
    assert result.status == "done", result.error
    return next((directory / "trials").iterdir())


def rows(trial):
    return [
        (row["step"], row["kind"], {k: v for k, v in row["metrics"].items() if not any(part in k for part in CLOCK)})
        for row in read_rows(trial / "metrics.jsonl")
    ]


def saved(trial, step):
    _, state, module = read_checkpoint(trial / "checkpoints" / f"step-{step:06d}")
    return state, module


def same(one, other):
    """Whether weights of the trainer and of a module file agree, names of the file's module aside."""
    return all(any(torch.equal(tensor, found) for found in other.values()) for tensor in one.values())


@pytest.fixture
def seen(monkeypatch):
    """What passes between rounds: (trained, previous, start)."""
    calls, between = [], Apo.between_rounds

    def watch(self, trained, previous):
        start = between(self, trained, previous)
        calls.append(tuple({n: t.clone() for n, t in weights.items()} for weights in (trained, previous, start)))
        return start

    monkeypatch.setattr(Apo, "between_rounds", watch)
    return calls


def test_rounds_start_beyond_their_predecessors_and_results_do_not(seen, tmp_path):
    trial = run(make(), tmp_path)

    assert len(seen) == 2  # three rounds: none after the last
    first, second = seen
    assert all(torch.equal(first[0][name], second[1][name]) for name in first[0])  # hats of consecutive rounds
    for trained, previous, start in seen:
        moved = [name for name in trained if not torch.equal(trained[name], previous[name])]
        assert moved
        for name in moved:
            expected = trained[name] + 0.6 * (trained[name] - previous[name])
            torch.testing.assert_close(start[name], expected, atol=0, rtol=0)
    for step, (trained, _, start) in zip((2, 4), seen, strict=True):
        state, module = saved(trial, step)
        assert same(trained, module)
        assert not same(start, module)
        assert same(start, state["start"])
        assert same(start, state["weights"]["reference"])
        assert same(start, state["weights"]["behaviour"])
        assert same(trained, state["weights"]["previous"])
    state, module = saved(trial, 6)
    assert same(state["start"], module)  # nothing is extrapolated at the end
    assert same(state["weights"]["result"], module)
    steps = {step: metrics for step, kind, metrics in rows(trial) if kind == "step"}
    assert all(steps[step]["train/act_train_logprob_gap"] < 1e-4 for step in (1, 3, 5))
    assert all(steps[step]["preferences/chosen"] == pytest.approx(0, abs=1e-6) for step in (1, 3, 5))
    assert all(steps[step]["preferences/chosen"] != pytest.approx(0, abs=1e-6) for step in (2, 4, 6))


@pytest.mark.parametrize(("accelerated", "plain"), [("apo_dpo", "iterative_dpo"), ("apo_sppo", "sppo")])
def test_without_momentum_a_trial_is_its_bases_to_the_bit(tmp_path, accelerated, plain):
    one = run(make(f"recipe={accelerated}", "objective.momentum=0.0"), tmp_path / "one")
    text = EXPERIMENT.replace("apo_dpo", plain).replace("objective: {momentum: 0.6}\n", "")
    other = run(plans.make(parse_experiment(text, ()), registry()), tmp_path / "other")

    assert rows(one) == rows(other)
    assert all(torch.equal(t, saved(other, 6)[1][n]) for n, t in saved(one, 6)[1].items())


def test_the_first_round_and_its_evaluation_do_not_depend_on_momentum(tmp_path):
    fast, slow = run(make(), tmp_path / "fast"), run(make("objective.momentum=0.1"), tmp_path / "slow")

    until = [[row for row in rows(trial) if row[0] <= 2] for trial in (fast, slow)]
    assert until[0] == until[1]
    assert rows(fast) != rows(slow)


def test_a_budget_spent_at_the_end_of_a_round_leaves_the_trained_weights(seen, tmp_path):
    whole = run(make(), tmp_path / "whole")
    spent = {step: m["cost/generated_tokens"] for step, kind, m in rows(whole) if kind == "step"}
    trained, _, start = seen[0]

    short = run(make(f"budget.generated_tokens={int(spent[2])}"), tmp_path / "short")

    assert json.loads((short / "result.json").read_text())["step"] == 2
    _, module = saved(short, 2)
    assert same(trained, module)
    assert not same(start, module)
    assert [row for row in rows(whole) if row[0] <= 2] == rows(short)


class Killed(BaseException):
    """Stands for a process that dies: nothing catches it."""


@pytest.mark.parametrize("step", [3, 4])
def test_a_trial_that_dies_at_a_rounds_end_or_within_continues_as_if_it_had_not(tmp_path, monkeypatch, step):
    from orchestrator.training import loop

    plan = make("objective.momentum=[0.6,0.2]")
    whole = run(plan, tmp_path / "whole")
    take_a_step = loop.Training.one_step

    def die(self):
        if self.progress.step + 1 == step:
            raise Killed
        return take_a_step(self)

    monkeypatch.setattr(loop.Training, "one_step", die)
    with pytest.raises(Killed):
        run(plan, tmp_path / "broken")
    monkeypatch.setattr(loop.Training, "one_step", take_a_step)
    mended = run(plan, tmp_path / "broken")

    assert rows(mended) == rows(whole)
    assert all(torch.equal(t, saved(whole, 6)[1][n]) for n, t in saved(mended, 6)[1].items())


@pytest.mark.parametrize("recipe", ["apo_dpo", "apo_sppo"])
def test_micro_batches_change_no_number_and_cost_no_pass(tmp_path, monkeypatch, recipe):
    from orchestrator_plugins.causal_lm.policy import CausalLMPolicy

    forward, calls = CausalLMPolicy.columns, []
    monkeypatch.setattr(
        CausalLMPolicy,
        "columns",
        lambda self, inputs, wanted: calls.append(len(inputs["tokens"])) or forward(self, inputs, wanted),
    )
    overrides = (f"recipe={recipe}", "schedule.steps=2", "update.drop_constant_groups=false")
    if recipe == "apo_sppo":
        overrides = (f"recipe={recipe}", "schedule.steps=2", "objective.base.step_size=4.0")

    whole = run(make(*overrides), tmp_path / "whole")
    passed = sum(calls)
    cut = run(make(*overrides, "update.micro_batch_rows=5"), tmp_path / "cut")

    assert sum(calls) == 2 * passed  # every row as often as before
    assert len(calls) > 12
    for (_, _, one), (_, _, other) in zip(rows(whole), rows(cut), strict=True):
        assert one == pytest.approx(other, rel=2e-4, abs=2e-5)


def test_a_plan_whose_reference_stays_behind_is_refused():
    with pytest.raises(ConfigError, match=r"schedule\.refresh_reference: is 'never', but objective apo"):
        make("schedule.refresh_reference=never")
