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

from orchestrator.runners.journal import read

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

QUALITIES = (0.5, 0.1, 0.7, 0.3, 0.9, 0.2, 0.6, 0.8)
SWEEP = {
    "tune": {"scheduler": {"use": "asha", "factor": 2.0}, "metric": "eval/reward/mean"},
    "resources": {"concurrent": 1},
}


def _plan():
    trials = {f"t{index}": {"quality": quality, "seconds": 0.01} for index, quality in enumerate(QUALITIES)}
    return ladder.plan(trials, SWEEP)


def _rungs(run: Path) -> list[tuple[float, str, int, float, str]]:
    return [(r.rung, r.trial, r.step, r.value, r.decision) for r in read(run).reports if r.rung is not None]


def _kill_after(driver, run: Path, reports: int, delay: float) -> None:
    """Kill the driver with signal 9 a moment after so many reports were written."""
    deadline = time.monotonic() + 120
    while sum(record["kind"] == "report" for record in ladder.journal(run)) < reports:
        assert driver.poll() is None, driver.stderr.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(delay)
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()


def test_three_kills_of_the_driver_leave_the_results_and_rungs_of_an_unbroken_run(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    expected = ladder.finish(ladder.start_driver(_plan(), unbroken, environment))
    reports = len(read(unbroken).reports)
    moments = random.Random(os.environ.get("KILL_SEED", "3"))

    finished_before: set[str] = set()
    for third in range(3):
        driver = ladder.start_driver(_plan(), broken, environment)
        after = max(1, round(reports * (third + moments.random()) / 3))
        _kill_after(driver, broken, min(after, reports - 1), delay=moments.uniform(0, 0.15))
        seen = {record["trial"] for record in ladder.journal(broken) if record["kind"] == "end"}
        assert finished_before <= seen
        finished_before = seen
    with (broken / "journal.jsonl").open("a") as file:
        file.write('{"kind":"report","trial":"t7","ste')  # a line the kill cut off
    results = ladder.finish(ladder.start_driver(_plan(), broken, environment))

    assert results == expected
    assert sorted({status for status, _, _ in results.values()}) == ["done", "stopped"]
    assert _rungs(broken) == _rungs(unbroken)
    assert [(r.trial, r.step, r.value) for r in read(broken).reports] == [
        (r.trial, r.step, r.value) for r in read(unbroken).reports
    ]
    for trial in results:
        rows = ladder.steps_of(broken / "trials" / trial)
        assert rows == ladder.steps_of(unbroken / "trials" / trial)
        assert len({(kind, step) for kind, step, _ in rows}) == len(rows)
    records = ladder.journal(broken)
    assert sum(record["kind"] == "sweep" for record in records) == 4
    for trial in results:
        kinds = [r["kind"] for r in records if r.get("trial") == trial and r["kind"] in ("start", "end")]
        assert kinds.index("end") == len(kinds) - 1, f"{trial} was played again after its end: {kinds}"
    stored = json.loads((broken / "trials" / "t1" / "result.json").read_text())
    assert stored["status"] == "stopped"
    assert stored["metrics"]["eval/reward/mean"] == pytest.approx(0.1, abs=0.02)
