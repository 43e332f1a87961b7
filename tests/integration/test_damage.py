"""One damaged file ends neither driver nor report: its trial is run again, or fails with its reason; the others go on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ladder
import orchestrator_plugins.baselines as baselines
import orchestrator_plugins.jsonl as jsonl
import orchestrator_plugins.mlp as mlp
import pytest
from ladder import ladder_world

from orchestrator.contract.plan import Plan
from orchestrator.errors import OrchestratorError
from orchestrator.experiment import planner
from orchestrator.experiment.files import parse_experiment
from orchestrator.runners import local
from orchestrator.runners.sweep import Sweep
from orchestrator.runners.watch import look
from orchestrator.runs import checksums, machine
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result
from orchestrator.runs.store import load_plan, save_plan
from orchestrator.runs.study import Study
from orchestrator.testing.loading import load_only
from orchestrator.verdict.study import judge_study

REGISTRY = load_only(baselines, mlp, jsonl, ladder_world)
EXPERIMENT = ladder.experiment(
    {"bonus": 1.0},
    seeds=[0, 1],
    recipe="grpo",
    schedule={"steps": 6, "tasks_per_step": 2},
    checkpoints={"every": 2, "keep": 2},
    tracking={"enabled": False, "transcripts": 1},
)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a list": lambda content: b"[]\n",
    "wrong types": lambda content: (
        b'{"status": 3, "step": "x", "metrics": [1], "tasks": 5, "kind": {}, "trials": 7}\n' * 2
    ),
    "binary": lambda content: bytes(range(256)) * 4 + b"\n" + content[len(content) // 3 :],
    "torn in the middle": lambda content: b"\n".join(_torn(content.split(b"\n"))),
    "another content of the same size": lambda content: content[:-40] + bytes(len(content[-40:])),
}
TRIAL = ["result.json", "metrics.jsonl", "evaluations.jsonl", "rollouts.jsonl", "SHA256SUMS", ".lock", "tracking.json"]
CHECKPOINT = ["model.safetensors", "tensors.safetensors", "state.json", "SHA256SUMS"]


def _made(experiment: dict[str, Any]) -> Plan:
    return planner.make(parse_experiment(json.dumps(experiment), ()), REGISTRY)


def _torn(lines: list[bytes]) -> list[bytes]:
    middle = len(lines) // 2
    return [*lines[:middle], lines[middle][: len(lines[middle]) // 2] + b'{"st', *lines[middle + 1 :]]


class Progress:
    def trial_update(self, trial, status, step, metrics):
        assert isinstance(step, int)


@pytest.fixture(scope="module")
def plan():
    return _made(EXPERIMENT)


@pytest.fixture(scope="module")
def whole(plan, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    save_plan(plan, run)
    machine.record(run)
    assert [result.status for result in local.run(plan, run, REGISTRY)] == ["done", "done"]
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def _damage(path: Path, damage: str) -> None:
    path.write_bytes(DAMAGES[damage](path.read_bytes() if path.exists() else b"{}\n" * 5))


def _unfinished(run: Path) -> Path:
    """Make the first trial one whose process was killed after its last checkpoint."""
    folder = RunFolder(run).trial("grpo-s0")
    folder.result.unlink()
    checksums.unseal(folder.path)
    return folder.path


def _same(run: Path, whole: Path, trial: str) -> bool:
    return ladder.steps_of(run / "trials" / trial) == ladder.steps_of(whole / "trials" / trial)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", TRIAL)
@pytest.mark.parametrize("ended", [True, False])
def test_a_damaged_file_of_a_trial(plan, whole, run, name, damage, ended):
    folder = RunFolder(run).trial("grpo-s0").path if ended else _unfinished(run)
    if not ended and name in ("result.json", "SHA256SUMS"):
        (folder / name).write_text("{}")
    _damage(folder / name, damage)

    judge_study(Study.read(run))
    look(run, ["grpo-s0", "grpo-s1"], Progress())
    first, second = local.run(plan, run, REGISTRY)

    assert (second.status, _same(run, whole, "grpo-s1")) == ("done", True)
    assert first.status == "done"
    study = Study.read(run)
    judge_study(study)
    if name == "metrics.jsonl":
        changed_only = ended and damage == "another content of the same size"
        assert changed_only or _same(run, whole, "grpo-s0")
    else:
        assert _same(run, whole, "grpo-s0")
    assert read_result(RunFolder(run).trial("grpo-s0")) == first


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CHECKPOINT)
@pytest.mark.parametrize("which", ["the last", "all"])
def test_a_damaged_checkpoint_is_noticed_before_its_weights_are_loaded(plan, whole, run, name, damage, which, caplog):
    folder = _unfinished(run)
    found = sorted((folder / "checkpoints").iterdir())
    for path in found if which == "all" else found[-1:]:
        _damage(path / name, damage)

    with caplog.at_level(logging.WARNING):
        first, second = local.run(plan, run, REGISTRY)

    assert (second.status, _same(run, whole, "grpo-s1")) == ("done", True)
    if which == "all":
        assert first.status == "failed"
        assert first.error.type == "CheckpointError"
        assert "none of the 2 checkpoints" in first.error.message
    else:
        assert (first.status, _same(run, whole, "grpo-s0")) == ("done", True)
        assert f"checkpoint {found[-1]}" in caplog.text
        assert "going back to the checkpoint before it" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_refused_with_its_path(run, damage):
    _damage(run / "plan.json", damage)

    with pytest.raises(OrchestratorError, match=r"plan\.json: cannot be read"):
        load_plan(run)
    with pytest.raises(OrchestratorError, match=r"plan\.json: cannot be read"):
        Study.read(run)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["machine.json", "report.json", ".lock"])
def test_a_damaged_file_nobody_needs_stops_nothing(plan, whole, run, name, damage):
    _damage(run / name, damage)

    assert [result.status for result in local.run(plan, run, REGISTRY)] == ["done", "done"]

    assert all(_same(run, whole, trial) for trial in ("grpo-s0", "grpo-s1"))
    judge_study(Study.read(run))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused_with_the_line_or_read_as_far_as_it_goes(plan, run, damage):
    sweep = Sweep(plan, run)
    for trial in ("grpo-s0", "grpo-s1"):
        sweep.started(trial)
        sweep.report(trial, 2, {"eval/reward/mean": 0.5, "cost/generated_tokens": 8.0})
        sweep.ended(trial, "done")
    sweep.close()
    _damage(run / "journal.jsonl", damage)

    judge_study(Study.read(run))
    if damage in ("cut", "empty", "another content of the same size"):  # of the last line
        again = Sweep(plan, run)
        assert [result.status for result in again.results()] == ["done", "done"]
        again.close()
    else:
        with pytest.raises(OrchestratorError, match=r"no journal record(.|\n)*remove that line"):
            Sweep(plan, run)


def test_rows_that_end_before_the_checkpoint_are_played_again(plan, whole, run, caplog):
    folder = _unfinished(run)
    rows = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(rows[:5]))

    with caplog.at_level(logging.WARNING):
        first, _ = local.run(plan, run, REGISTRY)

    assert first.status == "done"
    assert _same(run, whole, "grpo-s0")
    assert "and the newest checkpoint is of step 6. The trial is run again from its beginning" in caplog.text
    assert (folder / "metrics.jsonl.damaged").read_text() == "".join(rows[:5])


def test_a_damaged_checkpoint_of_a_shared_start_is_made_again(tmp_path, caplog):
    experiment = {**EXPERIMENT, "start": {"recipe": "grpo", "schedule": {"steps": 3}}}
    made = _made(experiment)
    assert [result.status for result in local.run(made, tmp_path, REGISTRY)] == ["done", "done"]
    rows = ladder.steps_of(tmp_path / "trials" / "grpo-s0")
    shutil.rmtree(tmp_path / "trials")
    (start,) = RunFolder(tmp_path).starts()
    _damage(sorted(start.checkpoints.iterdir())[-1] / "model.safetensors", "another content of the same size")

    with caplog.at_level(logging.WARNING):
        results = local.run(made, tmp_path, REGISTRY)

    assert [result.status for result in results] == ["done", "done"]
    assert ladder.steps_of(tmp_path / "trials" / "grpo-s0") == rows
    assert "the start phase is run again" in caplog.text


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_trial_that_cannot_be_written_fails_alone(plan, run, kind):
    folder = RunFolder(run).trial("grpo-s0")
    shutil.rmtree(folder.path)
    if kind == "file":
        folder.path.write_text("a file where the folder should be")
    else:
        folder.metrics.mkdir(parents=True)

    first, second = local.run(plan, run, REGISTRY)

    assert (first.status, second.status) == ("failed", "done")
    assert first.error.type
    judge_study(Study.read(run))
    assert json.loads((run / "plan.json").read_text())["name"] == "ladder"
