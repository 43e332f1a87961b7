"""Dhumbal through the core: tournaments as trials, killed and resumed, with their report; learners in the training loop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from orchestrator_plugins.dhumbal.report import render

from orchestrator.experiment import planner as plans
from orchestrator.experiment.files import load_experiment, parse_experiment
from orchestrator.plugging.registry import load_registry
from orchestrator.runners import local
from orchestrator.runs import store
from orchestrator.runs.ledger import read_rows
from orchestrator.runs.study import Study
from orchestrator.testing import make_study

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture(scope="module")
def registry():
    return load_registry(["baselines", "dhumbal", "mlp"])


def run(registry, directory, text, *overrides):
    plan = plans.make(parse_experiment(text, overrides), registry)
    store.save_plan(plan, directory)
    return local.run(plan, directory, registry)


TOURNAMENT = """
name: cards
procedure: dhumbal_tournament
environment: {use: dhumbal_tournament, resamples: 200, published: rules}
seeds: [42]
tracking: {enabled: false}
"""


def test_a_tournament_runs_as_a_trial_with_the_published_result(registry, tmp_path):
    [result] = run(registry, tmp_path, TOURNAMENT)

    assert result.status == "done"
    assert [row["win_rate"] for row in result.summary["table"]] == [35.05859375, 19.43359375, 25.09765625, 20.41015625]
    assert result.metrics["dhumbal/win_rate/aggressive"] == 35.05859375
    assert result.metrics["dhumbal/rounds"] == 1024
    rows = _rows(tmp_path)
    assert [row["step"] for row in rows] == sorted({row["step"] for row in rows})
    assert rows[-1]["step"] == 100
    page = render(Study.read(tmp_path))
    assert "35.06 ± 2.92" in page
    assert page.count("<svg") == 2
    assert "aggressive, published" in page
    assert "8.4e-07" in page


def _rows(directory):
    return list(read_rows(next((directory / "trials").iterdir()) / "metrics.jsonl"))


def test_a_run_without_tournaments_has_no_section(tmp_path):
    assert render(make_study(tmp_path, [])) is None


def test_another_environment_is_refused_by_name(registry, tmp_path):
    [result] = run(
        registry, tmp_path, TOURNAMENT.replace("dhumbal_tournament, resamples: 200, published: rules", "dhumbal")
    )

    assert result.status == "failed"
    assert "plays the environment 'dhumbal_tournament', not 'dhumbal'" in str(result.error)


def test_the_published_sweep_plans_without_problems():
    every = load_registry()
    for name in sorted(path.name for path in SWEEPS.glob("dhumbal_*.yaml")):
        assert plans.make(load_experiment(SWEEPS / name, []), every).trials


def test_a_killed_tournament_continues_to_identical_totals(registry, tmp_path):
    text = TOURNAMENT.replace("published: rules", "deals: 1500, chunk: 32")
    [whole] = run(registry, tmp_path / "whole", text)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from orchestrator.experiment import planner as plans\nfrom orchestrator.experiment.files import parse_experiment\n"
        "from orchestrator.plugging.registry import load_registry\nfrom orchestrator.runners import local\n"
        "registry = load_registry(['baselines', 'dhumbal', 'mlp'])\n"
        "local.run(plans.make(parse_experiment(sys.argv[1], []), registry), Path(sys.argv[2]), registry)\n"
    )
    cut = tmp_path / "cut"
    process = subprocess.Popen([sys.executable, "-c", program, text, str(cut)])
    give_up = time.monotonic() + 100
    while not list(cut.glob("trials/*/tournament.json")) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    [state] = cut.glob("trials/*/tournament.json")
    played = json.loads(state.read_text())["state"]["round"]
    [continued] = run(registry, cut, text)

    assert 0 < played < 1500
    for summary in (whole.summary, continued.summary):
        for row in summary["table"]:
            row.pop("milliseconds")
    assert continued.summary == whole.summary
    assert continued.metrics == whole.metrics


LEARNER = """
name: learner
environment: {use: dhumbal}
policy: {use: mlp, hidden: [16]}
schedule: {steps: 6, tasks_per_step: 4, minibatches: 2}
sampling: {max_turns: 120}
evaluation: {every: 3, tasks: 4, samples: 1, temperature: 0}
checkpoints: {every: 2}
tracking: {enabled: false}
"""


@pytest.mark.parametrize("recipe", ["ppo", "dhumbal_ppo", "dqn", "grpo"])
def test_learners_train_through_the_ordinary_loop(registry, tmp_path, recipe):
    [result] = run(registry, tmp_path, LEARNER + f"recipe: {recipe}\n")

    assert result.status == "done", result.error
    assert result.step == 6
    assert 0 <= result.metrics["eval/pass_at_1"] <= 1
    assert result.metrics["train/skipped_updates"] == 0


def test_q_learning_resumes_with_its_buffer(registry, tmp_path):
    text = LEARNER + "recipe: dqn\n"
    [whole] = run(registry, tmp_path / "whole", text)
    run(registry, tmp_path / "cut", text, "schedule.steps=4")
    for left in (tmp_path / "cut").glob("trials/*/result.json"):
        left.unlink()
    [continued] = run(registry, tmp_path / "cut", text)
    names = ("loss/policy", "dhumbal/q_mean", "dhumbal/replay_decisions", "train/grad_norm", "eval/reward/mean")

    assert {name: continued.metrics[name] for name in names} == {name: whole.metrics[name] for name in names}


def test_a_trained_checkpoint_plays_a_tournament(registry, tmp_path):
    run(registry, tmp_path / "learner", LEARNER + "recipe: ppo\n", "schedule.steps=2")
    [weights] = sorted((tmp_path / "learner").glob("trials/*/checkpoints/*"))[-1:]
    player = {"player": "network", "name": "ppo", "checkpoint": str(weights), "policy": {"use": "mlp", "hidden": [16]}}
    text = TOURNAMENT.replace(
        "published: rules", f"players: [aggressive, {json.dumps(player)}, random], deals: 10, published: championship"
    )
    [result] = run(registry, tmp_path / "cards", text)

    assert result.status == "done", result.error
    assert "ppo, Oct 2025" in render(Study.read(tmp_path / "cards"))


@pytest.mark.slow
def test_ppo_learns_to_beat_three_random_players(registry, tmp_path):
    overrides = ["schedule.steps=25", "evaluation.every=0", "evaluation.first=false", "evaluation.tasks=300"]
    overrides += ["seeds=[0]", "tracking.enabled=false"]
    plan = plans.make(load_experiment(SWEEPS / "dhumbal_ppo.yaml", overrides), registry)
    [result] = local.run(plan, tmp_path, registry)

    assert result.metrics["eval/pass_at_1"] >= 0.8  # after 800 of the 2,000 rounds it may take
