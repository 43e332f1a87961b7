"""A study: runs side by side, tuning apart from confirmation, read by report sections and notebooks."""

import json
import os
import warnings
from pathlib import Path

import pandas
import pytest
from synthetic_runs import build_run

from orchestrator.contract.plan import Phase
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.study import PALETTE, Study, comparable, differences

SEARCH = {"optimizer.lr": {"loguniform": [1e-5, 1e-3]}}


@pytest.fixture
def searched(tmp_path):
    return build_run(tmp_path / "run", gains={"a": 0.1, "b": 0.2}, seeds=(3, 0), steps=20, search=SEARCH)


def test_tuning_is_apart_from_confirmation(searched):
    study = Study.read(searched)

    assert {phase: len(trials) for phase, trials in study.phases.items()} == {
        Phase.TUNE: 16,
        Phase.CONFIRM: 4,
        Phase.START: 0,
    }
    assert study.seeds == (0, 3)
    assert study.status == {"done": 20}
    assert {(curve.arm, curve.seed) for curve in study.curves("eval/pass_at_1")} == {
        (arm, seed) for arm in "ab" for seed in (0, 3)
    }


def test_a_study_has_ended_when_all_that_enters_the_verdict_has(tmp_path):
    gains = {"a": 0.1, "b": 0.2}
    over = build_run(tmp_path / "over", gains=gains, seeds=(0, 1), steps=20, statuses={"a-s0": "failed"})
    going = build_run(tmp_path / "going", gains=gains, seeds=(0, 1), steps=20, statuses={"a-s0": "running"})

    assert Study.read(over).planned == (("a", 0), ("a", 1), ("b", 0), ("b", 1))
    assert Study.read(over).ended
    assert not Study.read(going).ended


def test_the_frame_holds_every_row_of_every_trial(searched):
    study = Study.read(searched)

    frame = study.frame()

    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == sum(len(trial.rows) for trial in study.trials)
    last = frame[(frame.trial == "b-s3") & (frame.kind == "evaluation")].iloc[-1]
    assert (last.run, last.arm, last.seed, last.phase, last.status, last.step) == ("run", "b", 3, "confirm", "done", 20)
    trial = next(trial for trial in study.trials if trial.id == "b-s3")
    assert last["eval/pass_at_1"] == trial.curve("eval/pass_at_1").values[-1]
    assert frame["searched/optimizer.lr"].notna().all()


def test_costs_are_the_last_values_of_the_counters(searched):
    trial = Study.read(searched).confirmations[0]

    assert trial.costs["cost/generated_tokens"] == 320_000
    assert set(trial.costs) == {name for name in trial.last if name.startswith("cost/")}


def test_evaluations_and_rollouts_are_read_by_trial(searched):
    trial = Study.read(searched).confirmations[0]
    trial.folder.evaluations.unlink(missing_ok=True)
    Ledger(trial.folder.evaluations).append(10, "evaluation", tasks={"t0": [4, 1], "t1": [4, 4]})
    Ledger(trial.folder.rollouts).write({"step": 3, "task": "t0", "rollouts": []})

    assert list(trial.evaluations())[-1:] == [(10, {"t0": (4, 1), "t1": (4, 4)})]
    assert [row["task"] for row in trial.rollouts()] == ["t0"]


def test_arms_have_a_colour_each_in_the_order_of_the_file(searched):
    assert dict(Study.read(searched).palette) == {"a": PALETTE[0], "b": PALETTE[1]}


def test_a_study_stands_for_its_folder_with_a_warning(searched):
    study = Study.read(searched)

    with pytest.warns(DeprecationWarning, match="report section is given a Study"):
        assert (Path(study) / "plan.json").is_file()
    with pytest.warns(DeprecationWarning, match="Study"):
        assert os.path.join(study, "x") == str(searched / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.frame()


def test_a_study_of_several_runs_is_no_path(tmp_path):
    runs = [build_run(tmp_path / name, gains={"a": 0.1}, seeds=(0,), steps=20) for name in ("one", "two")]

    with pytest.raises(TypeError, match="several runs"):
        os.fspath(Study.read(*runs))


def test_what_was_changed_after_a_trial_ended_is_said_aloud(searched):
    from orchestrator.contract.types import TrialResult
    from orchestrator.runs.layout import RunFolder
    from orchestrator.runs.results import write_result

    folder = RunFolder(searched).trial("a-s0")
    write_result(folder, TrialResult(trial="a-s0", arm="a", seed=0, status="done", step=20))
    assert Study.read(searched).warnings == ()
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    rows[-1]["metrics"]["eval/pass_at_1"] = 1.0
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert Study.read(searched).warnings == ("a-s0: metrics.jsonl is not what was written: its checksum differs",)


def test_merged_runs_of_equal_settings_add_their_seeds(tmp_path):
    first = build_run(tmp_path / "one", gains={"grpo": 0.2}, seeds=(0, 1), steps=20)
    second = build_run(tmp_path / "two", gains={"grpo": 0.2}, seeds=(1, 2), steps=20)

    study = Study.read(first, second)

    assert study.arms == ("grpo",)
    assert sorted(trial.spec.seed for trial in study.confirmations) == [0, 1, 2]
    assert "grpo, seed 1: also in two; the first run counts" in study.warnings


def test_merged_runs_of_different_settings_are_told_apart(tmp_path):
    first = build_run(tmp_path / "one", gains={"grpo": 0.2}, seeds=(0,), steps=20)
    second = build_run(tmp_path / "two", gains={"grpo": 0.2}, seeds=(0,), steps=30)

    study = Study.read(first, second)

    assert study.arms == ("grpo", "grpo (two)")
    assert list(differences({a: comparable(study.settings[a]) for a in study.arms})) == ["schedule.steps"]


def test_differences_name_dotted_paths_and_what_is_not_set():
    found = differences(
        {
            "a": {"objective": {"use": "clipped", "clip_high": 0.2}, "rewards": [{"use": "exact", "weight": 1.0}]},
            "b": {"objective": {"use": "clipped", "clip_high": 0.28}, "rewards": []},
        }
    )

    assert found["objective.clip_high"] == {"a": 0.2, "b": 0.28}
    assert found["rewards.0.use"] == {"a": "exact", "b": None}
    assert "objective.use" not in found


def test_a_study_waits_for_the_seeds_each_arm_has(tmp_path):
    run = build_run(tmp_path / "run", gains={"a": 0.2, "b": 0.2}, seeds=(0, 1), steps=10, own_seeds={"a": (0, 1, 2)})

    study = Study.read(run)

    assert set(study.planned) == {("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)}
    assert study.seeds == (0, 1, 2)
    assert study.ended
