"""What a sweep survives: a killed worker process, a trial that raises, a worker that never lives."""

from __future__ import annotations

import ladder
import pytest

from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.results import read_result

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_killed_worker_restarts_from_its_checkpoint_and_a_failing_trial_stops_no_other(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    mark = tmp_path / "died"
    made = ladder.plan(
        {
            "killed": {"quality": 0.5, "die_at": 22, "mark": str(mark)},  # in step 6: four episodes a step
            "calm": {"quality": 0.5},
            "raising": {"raise_at": 1},
            "doomed": {"die_at": 1},
        },
        {"failures": {"restarts": 1}, "resources": {"concurrent": 1}},
    )

    results = ladder.finish(ladder.start_driver(made, tmp_path / "run", environment))

    assert mark.exists()
    assert {trial: status for trial, (status, _, _) in results.items()} == {
        "killed": "done",
        "calm": "done",
        "raising": "failed",
        "doomed": "failed",
    }
    assert "no rung at 1" in results["raising"][2]
    assert "raised by plugin 'ladder' (ladder-world 1.0)" in results["raising"][2]
    assert "was lost 2 times" in results["doomed"][2]
    trials = tmp_path / "run" / "trials"
    assert ladder.steps_of(trials / "killed") == ladder.steps_of(trials / "calm")
    log = (trials / "killed" / "trial.log").read_text()
    assert "INFO ladder_world: dying at episode 22" in log
    assert "trial killed continues after step 4" in log
    records = ladder.journal(tmp_path / "run")
    assert ladder.starts(records).count("killed") == 2
    assert ladder.starts(records).count("raising") == 1
    reported = [r["step"] for r in records if r["kind"] == "report" and r["trial"] == "killed"]
    assert reported == [0, 2, 4, 6, 8]
    assert read_result(TrialFolder(trials / "doomed")).status == "failed"
