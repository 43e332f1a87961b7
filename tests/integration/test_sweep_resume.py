"""A sweep whose driver is killed goes on as if nothing had happened: three kills against one unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import ladder
import pytest

from orchestrator.contract.types import TrialResult
from orchestrator.runs.journal import read
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import read_result

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SWEEP = ladder.experiment(
    {"bonus": 1.0, "seconds": 0.005},
    arms={"plain": {}},
    search={"optimizer.lr": {"loguniform": [1e-4, 1.0]}},
    tune={"samples": 8, "scheduler": {"use": "asha", "factor": 2.0}, "metric": "eval/reward/mean"},
    resources={"concurrent": 1},
)


def _rungs(run: Path) -> list[tuple[float, str, int, float, str]]:
    return [(r.rung, r.trial, r.step, r.value, r.decision) for r in read(run).reports if r.rung is not None]


def _count(run: Path, kind: str) -> int:
    return sum(record["kind"] == kind for record in ladder.journal(run))


def _kill_after(driver, run: Path, reports: int, delay: float) -> None:
    """Kill the driver with signal 9 a moment after so many reports were written."""
    deadline = time.monotonic() + 120
    while _count(run, "report") < reports:
        assert driver.poll() is None, driver.stderr.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(delay)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()


def test_three_kills_of_the_driver_leave_the_results_and_rungs_of_an_unbroken_run(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps(SWEEP))
    whole = ladder.start_command("run", file, "--runs", tmp_path / "whole", environment=environment)
    unbroken = ladder.run_directory(tmp_path / "whole", whole)
    _, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err[-4000:]
    reports = len(read(unbroken).reports)
    moments = random.Random(os.environ.get("KILL_SEED", "3"))

    driver = ladder.start_command("run", file, "--runs", tmp_path / "cut", environment=environment)
    broken = ladder.run_directory(tmp_path / "cut", driver)
    ended: set[str] = set()
    for third in range(3):
        after = max(round(reports * (third + 0.8 * moments.random()) / 3), _count(broken, "report") + 1)
        _kill_after(driver, broken, after, delay=moments.uniform(0, 0.15))
        seen = {record["trial"] for record in ladder.journal(broken) if record["kind"] == "end"}
        assert ended <= seen
        ended = seen
        with (broken / "journal.jsonl").open("a") as journal:
            journal.write('{"kind":"report","trial":"t7","ste')  # a line the kill cut off
        driver = ladder.start_command("resume", broken, "--accept-changes", environment=environment)
    _, err = driver.communicate(timeout=240)

    assert driver.returncode == 0, err[-4000:]
    results = {result.trial: result for result in _results(broken)}
    expected = {result.trial: result for result in _results(unbroken)}
    assert {name: (r.status, r.step) for name, r in results.items()} == {
        name: (r.status, r.step) for name, r in expected.items()
    }
    assert {r.status for r in results.values()} == {"done", "stopped"}
    assert _rungs(broken) == _rungs(unbroken)
    assert [(r.trial, r.step, r.value) for r in read(broken).reports] == [
        (r.trial, r.step, r.value) for r in read(unbroken).reports
    ]
    for trial in results:
        rows = ladder.steps_of(broken / "trials" / trial)
        assert rows == ladder.steps_of(unbroken / "trials" / trial)
        assert len({(kind, step) for kind, step, _ in rows}) == len(rows)
    records = ladder.journal(broken)
    assert _count(broken, "sweep") == 4
    for trial in results:
        kinds = [r["kind"] for r in records if r.get("trial") == trial and r["kind"] in ("start", "end")]
        assert kinds.index("end") == len(kinds) - 1, f"{trial} was played again after its end: {kinds}"
    assert (broken / "report.html").exists()


@pytest.mark.faults
def test_a_kill_of_the_driver_leaves_the_proposals_and_decisions_of_an_unbroken_run(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    strangers = str(Path(__file__).parents[1] / "plugins")  # where dice_searcher.py is
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], strangers])
    file = tmp_path / "ladder.yaml"
    searched = {
        "samples": 5,
        "searcher": {"use": "ray", "searcher": "dice_searcher:Dice"},
        "scheduler": {"use": "optuna_pruner", "pruner": "MedianPruner", "n_startup_trials": 1},
        "metric": "eval/reward/mean",
    }
    file.write_text(json.dumps({**SWEEP, "tune": searched}))
    whole = ladder.start_command("run", file, "--runs", tmp_path / "whole", environment=environment)
    unbroken = ladder.run_directory(tmp_path / "whole", whole)
    _, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err[-4000:]
    assert f"imports dice_searcher from {strangers}" in err

    driver = ladder.start_command("run", file, "--runs", tmp_path / "cut", environment=environment)
    broken = ladder.run_directory(tmp_path / "cut", driver)
    _kill_after(driver, broken, len(read(unbroken).reports) // 2, delay=0.05)
    driver = ladder.start_command("resume", broken, environment=environment)
    _, err = driver.communicate(timeout=240)

    assert driver.returncode == 0, err[-4000:]
    before, after = read(unbroken), read(broken)
    assert _count(broken, "sweep") == 2
    assert after.suggestions == before.suggestions
    assert len(after.suggestions) == 5
    assert [(r.trial, r.step, r.value, r.decision) for r in after.reports] == [
        (r.trial, r.step, r.value, r.decision) for r in before.reports
    ]
    assert {report.decision for report in after.reports} == {"continue", "stop"}


def _results(run: Path) -> list[TrialResult]:
    found = [read_result(folder) for folder in RunFolder(run).trials()]
    assert None not in found
    return found


def test_an_interrupted_sweep_plays_its_trials_to_their_end_when_resumed(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    sweep = ladder.experiment(
        {"bonus": 1.0, "seconds": 0.1}, arms={"plain": {}}, seeds=[0, 1], resources={"concurrent": 1}
    )
    file.write_text(json.dumps(sweep))
    driver = ladder.start_command("run", file, "--runs", tmp_path / "runs", environment=environment)
    run = ladder.run_directory(tmp_path / "runs", driver)
    deadline = time.monotonic() + 120
    while _count(run, "report") < 2:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)

    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=120)
    interrupted = [read_result(folder) for folder in RunFolder(run).trials()]
    again = ladder.start_command("resume", run, environment=environment)
    _, err = again.communicate(timeout=240)

    assert driver.returncode == 130
    assert interrupted == [None]
    assert again.returncode == 0, err[-4000:]
    assert [(result.status, result.step) for result in _results(run)] == [("done", 8), ("done", 8)]
