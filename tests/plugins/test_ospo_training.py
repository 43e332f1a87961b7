"""The recipes of dispatch through the real training loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.api import ConfigError, load_registry
from orchestrator.experiment import planner as plan
from orchestrator.experiment.files import load_experiment
from orchestrator.runners.trial import run_spec

SWEEPS = Path(__file__).parents[2] / "sweeps"
SMALL = [
    "seeds=[0]",
    "environment.vehicles=12",
    "environment.minutes=15",
    "environment.max_requests=48",
    "evaluation.tasks=8",
    "evaluation.every=0",
]


TINY = "policy.hidden=[32,32]"


def train(directory, arm, *overrides, file="ospo.yaml"):
    """Play one arm's trial; returns its result and its rows by kind."""
    registry = load_registry(["baselines", "ospo"])
    trials = plan.make(load_experiment(SWEEPS / file, [*SMALL, *overrides]), registry).trials
    (trial,) = (t for t in trials if t.arm == arm)
    result = run_spec(trial, directory, registry=registry)
    assert result.status == "done", result.error
    rows = [json.loads(line) for line in (directory / "trials" / trial.id / "metrics.jsonl").open()]
    return result, {kind: [r["metrics"] for r in rows if r["kind"] == kind] for kind in ("step", "evaluation")}


@pytest.mark.parametrize("arm", ["ospo", "grpo_dispatch", "ppo_dispatch", "grpo"])
def test_every_recipe_trains_on_the_decisions_of_the_fleet(tmp_path, arm):
    _, rows = train(tmp_path, arm, TINY, "schedule.steps=2")

    for metrics in rows["step"]:
        assert metrics["train/act_train_logprob_gap"] < 1e-4
        assert metrics["train/tokens"] == metrics["rollout/tokens/mean"] * metrics["train/rows"]
        assert metrics["train/skipped_updates"] == 0
        assert metrics["train/rows"] == 12
    before, after = rows["evaluation"]
    assert before["eval/episode/requests"] == after["eval/episode/requests"]
    assert before["eval/episode/discounted_reward"] != after["eval/episode/discounted_reward"]


def test_ospo_soon_serves_better_than_an_untrained_network(tmp_path):
    real = ["environment.vehicles=30", "environment.minutes=30", "environment.max_requests=128", "evaluation.tasks=5"]

    _, rows = train(tmp_path, "ospo", *real, "schedule.steps=20", "policy.epsilon_decay=0.8")

    before, after = rows["evaluation"]
    assert after["eval/episode/discounted_reward"] > 1.3 * before["eval/episode/discounted_reward"]
    assert after["eval/episode/pickup_minutes"] < before["eval/episode/pickup_minutes"]


def test_a_kl_to_the_reference_is_0_at_first_and_then_is_not(tmp_path):
    _, rows = train(
        tmp_path, "ospo", TINY, "schedule.steps=2", "schedule.epochs=2", "objective={use: pair_clipped, kl_weight: 0.5}"
    )

    first, second = (metrics["train/kl_reference"] for metrics in rows["step"])
    assert 0 <= first < second


def test_yardsticks_are_evaluated_without_training(tmp_path):
    result, rows = train(tmp_path, "nearest", file="ospo_yardsticks.yaml")

    assert result.step == 0
    assert not rows["step"]
    assert rows["evaluation"][-1]["eval/episode/service_rate"] > 0.7
    assert rows["evaluation"][-1]["cost/generated_tokens"] == 0


def test_training_a_yardstick_is_refused_before_anything_starts():
    registry = load_registry(["baselines", "ospo"])
    experiment = load_experiment(SWEEPS / "ospo_yardsticks.yaml", [*SMALL, "schedule.steps=3"])

    with pytest.raises(ConfigError, match=r"schedule\.steps: .* is not trained"):
        plan.make(experiment, registry)
