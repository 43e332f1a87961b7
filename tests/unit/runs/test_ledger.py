"""Rows of a trial: appended, rewound, read after a tear."""

import pytest

from orchestrator.runs.ledger import Ledger, finite, read_rows


def test_rewinding_forgets_later_rows_and_a_torn_line(tmp_path):
    ledger = Ledger(tmp_path / "metrics.jsonl")
    for step in range(5):
        ledger.append(step, "step", metrics={"x": float(step)})
    with ledger.path.open("a") as file:
        file.write('{"step": 5, "ki')

    ledger.rewind(2)

    assert [row["metrics"]["x"] for row in ledger.rows()] == [0.0, 1.0, 2.0]
    assert ledger.path.read_text().endswith("}\n")


def test_a_torn_line_in_the_middle_is_an_error_with_its_place(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')

    with pytest.raises(ValueError, match=r"metrics.jsonl:2"):
        list(read_rows(path))


def test_numbers_that_are_not_finite_stay_out():
    assert finite({"a": 1, "b": float("nan"), "c": float("inf")}) == {"a": 1.0}
