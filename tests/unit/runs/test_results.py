"""What the driver makes of a trial's files."""

from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.results import gather


def test_a_result_is_gathered_from_the_rows_up_to_a_damaged_one_which_is_named(tmp_path):
    rows = ['{"step": 1, "metrics": {"a": 1.0, "b": 2.0}}', '{"step": 2, "metrics": {"a": 3.0}}']
    file = tmp_path / "metrics.jsonl"

    file.write_text("\n".join([*rows, '{"st']))
    torn = gather(TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed", error="node lost")
    file.write_text("\n".join([*rows, '{"st', '{"step": 4, "metrics": {"a": 4.0}}']))
    damaged = gather(TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed", error="node lost")

    assert (torn.step, torn.metrics, torn.error) == (2, {"a": 3.0, "b": 2.0}, "node lost")
    assert (damaged.step, damaged.metrics) == (2, {"a": 3.0, "b": 2.0})
    assert damaged.error.startswith("node lost; ")
    assert "metrics.jsonl:3: not a JSON row" in damaged.error


def test_a_trial_that_left_nothing_has_an_empty_result(tmp_path):
    result = gather(TrialFolder(tmp_path), trial="t", arm="a", seed=0, status="failed")

    assert (result.step, result.metrics, result.error) == (0, {}, None)
