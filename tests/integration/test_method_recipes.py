"""Recipes of the single-turn methods, alone and combined, for two steps on a very small language model."""

import json
from functools import cache
from pathlib import Path

import pytest

from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import parse_experiment
from orchestrator.plugging.registry import load_registry
from orchestrator.runners import local
from orchestrator.runs.ledger import read_rows

EXPERIMENT = """
name: methods
environment: {use: countdown, numbers: [2, 3], max_number: 4, operations: ["+", "*"], expression_style: spaced}
policy: {use: causal_lm, model: {preset: tiny, hidden: 32, layers: 1, heads: 2, mlp: 64}}
rewards: [{use: exact}, {use: meteor_similarity, weight: 0.0, pairs: 8}]
start: {recipe: sft, schedule: {steps: 60, tasks_per_step: 32}, optimizer: {lr: 1.0e-2}}
schedule: {steps: 2, tasks_per_step: 8}
sampling: {max_tokens: 12, max_turns: 1}
optimizer: {lr: 1.0e-3, warmup: 0}
evaluation: {every: 1, tasks: 6, samples: 4, k: [1, 4]}
tracking: {enabled: false}
arms:
  dars: {recipe: dars, sampler: {max_rollouts: 12}}
  dars-breadth: {recipe: dars_breadth, sampler: {max_rollouts: 12}}
  rover: {recipe: rover}
  grao: {recipe: grao}
  superhf: {recipe: superhf}
  dars+rover: {recipe: rover, sampler: {use: dars, max_rollouts: 12}}
  dars+grao: {recipe: grao, sampler: {base: {use: dars, max_rollouts: 12}}}
"""


@cache
def registry():
    return load_registry(only=["baselines", "causal_lm", "countdown", "dars", "rover", "grao", "superhf"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    pytest.importorskip("nltk", reason="METEOR needs nltk: pip install 'rl-orchestrator[superhf]'")
    path = tmp_path_factory.mktemp("methods")
    results = local.run(plans.make(parse_experiment(EXPERIMENT, ()), registry()), path, registry())
    assert {result.arm: result.status for result in results} == dict.fromkeys(
        parse_experiment(EXPERIMENT, ()).file["arms"], "done"
    )
    return path


def steps(directory: Path, arm: str) -> list[dict]:
    return [
        r["metrics"] for r in read_rows(directory / "trials" / f"{arm}-s0" / "metrics.jsonl") if r["kind"] == "step"
    ]


@pytest.mark.parametrize("arm", ["dars", "dars-breadth", "dars+rover", "dars+grao"])
def test_dars_reports_what_it_sampled(directory, arm):
    for metrics in steps(directory, arm):
        assert 8 <= metrics["dars/rollouts/mean"] <= 12
        assert metrics["dars/extra_rollouts"] == pytest.approx(8 * (metrics["dars/rollouts/mean"] - 8))
        assert metrics["rollout/groups_trained"] == round(8 * (1 - metrics["dars/dropped"]))
    generated = steps(directory, arm)[-1]["cost/rollouts"]
    demonstrated = 8 * 2 - sum(round(8 * m["dars/dropped"]) for m in steps(directory, arm)) if arm == "dars+grao" else 0
    assert generated == 2 * 64 + sum(m["dars/extra_rollouts"] for m in steps(directory, arm)) + demonstrated


@pytest.mark.parametrize(
    ("arm", "most"),
    [("dars-breadth", (2, 1)), ("dars", (1, 2)), ("rover", (1, 4)), ("grao", (1, 1)), ("superhf", (1, 1))],
)
def test_optimiser_steps_follow_epochs_and_mini_batches_not_rows(directory, arm, most):
    epochs, minibatches = most
    [newest] = sorted((directory / "trials" / f"{arm}-s0" / "checkpoints").glob("step-000002"))
    taken = json.loads((newest / "state.json").read_text())["state"]["trainer"]["updates"]

    assert taken == sum(epochs * min(minibatches, m["rollout/groups_trained"]) for m in steps(directory, arm))


def test_rover_moves_within_a_step(directory):
    for metrics in steps(directory, "rover"):
        assert metrics["rover/q/abs"] > 0
        assert metrics["rover/bootstrap/abs"] > 0


def test_grao_trains_on_one_demonstration_a_group(directory):
    for metrics in steps(directory, "grao"):
        assert metrics["rollout/group_size/mean"] == 9
        assert 0 <= metrics["grao/better_than_demonstration"] <= metrics["grao/as_good_as_demonstration"] <= 1
        shares = [metrics[f"grao/share/{name}"] for name in ("policy", "imitation", "alignment")]
        assert sum(shares) == pytest.approx(1.0) or sum(shares) == 0.0


def test_superhf_trains_on_the_best_and_measures_how_far_it_went(directory):
    first, second = steps(directory, "superhf")

    assert first["rollout/group_size/mean"] == 1
    assert first["superhf/score/kept"] >= first["superhf/score/sampled"]
    assert first["superhf/kl"] == pytest.approx(0.0, abs=1e-6)
    assert second["superhf/kl"] > 0


def test_measures_of_an_evaluation_reach_its_row(directory):
    for row in read_rows(directory / "trials" / "superhf-s0" / "metrics.jsonl"):
        assert ("eval/meteor_similarity" in row["metrics"]) == (row["kind"] == "evaluation")
        if row["kind"] == "evaluation":
            assert 0 < row["metrics"]["eval/meteor_similarity"] < 1
