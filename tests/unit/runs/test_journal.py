"""The journal: what was written is read back, torn lines are dropped aloud."""

from __future__ import annotations

import json
import logging

import pytest

from orchestrator.contract.plan import Phase, TrialSpec
from orchestrator.contract.settings import Settings
from orchestrator.errors import OrchestratorError
from orchestrator.runs import journal as journals
from orchestrator.runs.journal import Evaluated, Extension, Journal, Look, read

SPEC = TrialSpec(
    id="a-s0",
    arm="a",
    seed=0,
    phase=Phase.TUNE,
    sample=2,
    searched={"optimizer.lr": 0.1},
    settings=Settings.model_validate({"name": "x", "environment": {"use": "y"}, "optimizer": {"lr": 0.1}}),
)
REPORT = Evaluated(trial="a-s0", step=4, cost=40.0, value=0.25, decision="stop", rung=36.0)


def _filled(directory):
    journal = Journal(directory)
    journal.append([journals.sweep_record(resumed=False), journals.trials_record([SPEC])])
    journal.append([{"kind": "suggestion", "arm": "a", "index": 2, "values": {"optimizer.lr": 0.1}}])
    journal.append([{"kind": "start", "trial": "a-s0"}, journals.evaluated_record(REPORT)])
    return journal


def test_everything_written_is_read_back(tmp_path):
    _filled(tmp_path).close()

    history = read(tmp_path)

    assert history.sweeps == 1
    assert history.reports == [REPORT]
    assert history.suggestions == {("a", 2): {"optimizer.lr": 0.1}}
    trial = history.trials["a-s0"]
    assert trial.spec == SPEC
    assert (trial.starts, trial.last_step, trial.value, trial.cost, trial.stopped) == (1, 4, 0.25, 40.0, True)


def test_a_torn_last_line_is_dropped_said_aloud_and_written_over(tmp_path, caplog):
    _filled(tmp_path).close()
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"kind":"end","trial":"a-s0","sta')

    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path)
    journal.append([{"kind": "end", "trial": "a-s0", "status": "stopped", "step": 4}])
    journal.close()

    assert "cut off by a crash (33 bytes)" in caplog.text
    assert read(tmp_path).trials["a-s0"].status == "stopped"
    assert all(json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines())


def test_a_journal_of_nothing_but_a_torn_line_is_empty(tmp_path):
    (tmp_path / "journal.jsonl").write_text('{"kind":"swe')

    journal = Journal(tmp_path)

    assert journal.history.sweeps == 0
    assert journal.path.read_text() == ""


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    _filled(tmp_path).close()
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "garbage\n", *lines[1:]]))

    with pytest.raises(OrchestratorError, match=r"journal\.jsonl, line 2: no journal record"):
        read(tmp_path)


def test_records_of_a_newer_version_are_skipped(tmp_path, caplog):
    journal = _filled(tmp_path)
    journal.append([{"kind": "weather", "sky": "blue"}])
    journal.close()

    assert read(tmp_path).reports == [REPORT]
    assert "'weather'" in caplog.text


LOOK = Look(
    number=1,
    seeds=3,
    share=0.15,
    metric="eval/pass_at_1",
    trials=("a-s0", "b-s0"),
    digest="0123456789abcdef",
    counts={"a": 3, "b": 2},
    decided={"b": "better"},
    open=("c",),
    spent=0.011464,
    over=False,
)


def test_looks_and_extensions_are_read_back_to_the_bit(tmp_path):
    journal = Journal(tmp_path)
    journal.append([journals.look_record(LOOK), journals.extension_record(Extension(("a", "b"), (20, 21)))])
    journal.close()

    found = read(tmp_path)

    assert found.looks == [LOOK]
    assert found.extensions == [Extension(("a", "b"), (20, 21))]


@pytest.mark.parametrize("damage", [{"counts": [3]}, {"trials": None}, {"decided": "b"}])
def test_a_look_that_is_none_is_named_with_its_line(tmp_path, damage):
    journal = Journal(tmp_path)
    journal.append([{**journals.look_record(LOOK), **damage}])
    journal.close()

    with pytest.raises(OrchestratorError, match="line 1: no journal record"):
        read(tmp_path)
