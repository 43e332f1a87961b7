"""What the driver makes of a trial's files."""

import json

import pytest

from orchestrator.contract.types import Rollout, TrialResult
from orchestrator.errors import Failure
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.results import gather, read_result, write_result

FAILURE = Failure(type="ValueError", message="a\n  b", blamed="'x' (d 1) in reward 'y'", traceback="Traceback ...")


@pytest.mark.parametrize("failure", [FAILURE, None])
def test_a_result_is_read_back_as_written(tmp_path, failure):
    result = TrialResult(trial="t", arm="a", seed=0, status="failed", step=2, metrics={"m": 1.0}, error=failure)

    write_result(TrialFolder(tmp_path), result)

    assert read_result(TrialFolder(tmp_path)) == result
    assert json.loads((tmp_path / "result.json").read_text())["error"] == (failure and failure.to_json())


def test_a_result_of_an_older_version_is_read(tmp_path):
    text = "Traceback (most recent call last):\n  ...\nValueError: no\nraised by plugin 'x' (d 1) in reward"
    fields = {"trial": "t", "arm": "a", "seed": 0, "status": "failed", "step": 2, "error": text}
    (tmp_path / "result.json").write_text(json.dumps(fields))

    error = read_result(TrialFolder(tmp_path)).error

    assert error == Failure(type="ValueError", message="no", blamed="'x' (d 1) in reward", traceback=text)


def test_results_and_rollouts_may_be_given_a_text():
    result = TrialResult(trial="t", arm="a", seed=0, status="failed", step=0, error="the game is over")
    rollout = Rollout(task_id="t", index=0, seed=0, turns=(), error="ValueError: no")

    assert result.error == Failure(type="", message="the game is over")
    assert str(rollout.error) == "ValueError: no"
    assert rollout.error.type == "ValueError"


def test_a_result_is_gathered_from_the_rows_up_to_a_damaged_one_which_is_named(tmp_path):
    rows = ['{"step": 1, "metrics": {"a": 1.0, "b": 2.0}}', '{"step": 2, "metrics": {"a": 3.0}}']
    file = tmp_path / "metrics.jsonl"

    file.write_text("\n".join([*rows, '{"st']))
    torn = gather(
        TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed", error=Failure.from_json("node lost")
    )
    file.write_text("\n".join([*rows, '{"st', '{"step": 4, "metrics": {"a": 4.0}}']))
    damaged = gather(
        TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed", error=Failure.from_json("node lost")
    )

    assert (torn.step, torn.metrics, str(torn.error)) == (2, {"a": 3.0, "b": 2.0}, "node lost")
    assert (damaged.step, damaged.metrics) == (2, {"a": 3.0, "b": 2.0})
    assert str(damaged.error).startswith("node lost; ")
    assert "metrics.jsonl:3: not a JSON row" in str(damaged.error)


def test_a_trial_that_left_nothing_has_an_empty_result(tmp_path):
    result = gather(TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed")

    assert (result.step, result.metrics, result.error) == (0, {}, None)
