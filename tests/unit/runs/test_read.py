"""Reading run directories, whole and broken."""

import json

import pytest
from synthetic_runs import build_run

from orchestrator.errors import ConfigError
from orchestrator.runs import read as runs
from orchestrator.runs.study import Study


@pytest.fixture
def run(tmp_path):
    return build_run(tmp_path / "run", gains={"grpo": 0.2, "dars": 0.25}, seeds=(0, 1), steps=20)


def test_a_directory_without_a_plan_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(ConfigError, match=r"is no run: it has no plan\.json"):
        runs.read(tmp_path)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(ConfigError, match="cannot be read: this is no plan"):
        runs.read(tmp_path)


def test_curves_carry_the_cost_of_their_moment(run):
    trial = next(trial for trial in runs.read(run).trials if trial.spec.id == "grpo-s0")

    curve = trial.curve("eval/pass_at_1")

    assert curve.steps.tolist() == [0, 10, 20]
    assert curve.costs.tolist() == [0, 160_000, 320_000]
    assert curve.first == curve.values[0]
    assert trial.curve("eval/unheard_of") is None


def test_a_torn_last_line_is_left_out(run):
    path = run / "trials" / "grpo-s0" / "metrics.jsonl"
    whole = runs.read(run).trials[0].curve("eval/pass_at_1").values.tolist()
    path.write_text(path.read_text() + '{"step": 21, "kind": "st')

    read = runs.read(run)

    assert read.trials[0].curve("eval/pass_at_1").values.tolist() == whole
    assert read.warnings == ()


def test_a_broken_line_in_the_middle_is_said_aloud(run):
    path = run / "trials" / "grpo-s0" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], "garbage", *lines[5:]]) + "\n")

    read = runs.read(run)

    assert "grpo-s0: read up to a broken line" in read.warnings[0]
    assert len(read.trials[0].rows) == 5


def test_repeated_steps_count_once_and_are_said_aloud(run):
    path = run / "trials" / "grpo-s0" / "metrics.jsonl"
    again = {"step": 20, "kind": "evaluation", "time": 0, "metrics": {"eval/pass_at_1": 0.75}}
    path.write_text(path.read_text() + json.dumps(again) + "\n")

    read = runs.read(run)

    assert read.trials[0].curve("eval/pass_at_1").values[-1] == 0.75
    assert "1 rows of metrics.jsonl repeat a step" in read.warnings[0]


def test_values_that_are_not_finite_are_left_out(run):
    path = run / "trials" / "grpo-s0" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 30, "kind": "evaluation", "metrics": {"eval/pass_at_1": NaN}}\n')

    assert runs.read(run).trials[0].curve("eval/pass_at_1").steps.tolist() == [0, 10, 20]


def test_statuses_come_from_results_and_rows(tmp_path):
    statuses = {"a-s0": "pending", "a-s1": "running", "a-s2": "failed"}
    run = build_run(tmp_path / "run", gains={"a": 0.1}, seeds=(0, 1, 2, 3), steps=20, statuses=statuses)

    assert [trial.status for trial in runs.read(run).trials] == ["pending", "running", "failed", "done"]


def test_trials_added_by_the_sweep_are_read_from_its_journal(tmp_path):
    run = build_run(
        tmp_path / "run",
        gains={"a": 0.1, "b": 0.2},
        seeds=(0, 1),
        steps=20,
        search={"optimizer.lr": {"loguniform": [1e-5, 1e-3]}},
    )

    study = Study.read(run)

    assert len(study.tuning) == 16
    assert [trial.spec.id for trial in study.confirmations] == ["a-s0", "b-s0", "a-s1", "b-s1"]
    assert study.arms == ("a", "b")


def test_a_folder_nobody_specified_is_left_out_aloud(run):
    (run / "trials" / "stray").mkdir()

    assert "no specification of stray" in runs.read(run).warnings[0]
