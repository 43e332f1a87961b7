"""A sweep that adds seeds until its arms are decided: killed at ten moments it makes the looks of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import ladder
import pytest

from orchestrator.runs.journal import read
from orchestrator.runs.study import Study
from orchestrator.verdict.study import judge_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SWEEP = ladder.experiment(
    {"bonus": 1.0, "seconds": 0.01},
    arms={
        "plain": {"optimizer": {"lr": 0.01}},
        "same": {"optimizer": {"lr": 0.011}},
        "fast": {"optimizer": {"lr": 0.5}},
    },
    seeds={"first": 3, "at_most": 8},
    schedule={"steps": 4, "tasks_per_step": 2},
    report={"metric": "eval/reward/mean", "margin": 0.3},
)
FAILING = {"plain": {}, "fast": {"optimizer": {"lr": 0.5}}, "broken": {"environment": {"raise_at": 5}}}


def _run(file: Path, runs: Path, environment: dict[str, str], *options: str):
    started = ladder.start_command("run", file, "--runs", runs, *options, environment=environment)
    directory = ladder.run_directory(runs, started)
    return started, directory


def _ended(directory: Path) -> int:
    return len(list(directory.glob("trials/*/result.json"))) + sum(
        r["kind"] == "look" for r in ladder.journal(directory)
    )


def _kill_after(started, directory: Path, ends: int, delay: float) -> bool:
    """Kill a run with signal 9 a moment after so many trials and looks; whether it was still running."""
    deadline = time.monotonic() + 120
    while _ended(directory) < ends:
        if started.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    alive = started.poll() is None
    if alive:
        os.kill(started.pid, signal.SIGKILL)
    started.communicate()
    return alive


def _verdict(directory: Path):
    found, why = judge_study(Study.read(directory))
    assert found is not None, why
    shown = [(c.arm, str(c.outcome), c.difference, c.interval, c.look, c.seeds) for c in found.comparisons]
    return found.headline, shown, found.final


@pytest.mark.faults
def test_ten_kills_leave_the_looks_the_verdict_and_the_spent_error_of_an_unbroken_run(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps(SWEEP))
    whole, unbroken = _run(file, tmp_path / "whole", environment, "--local")
    _, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err[-4000:]
    ends = _ended(unbroken)
    draw = random.Random(os.environ.get("KILL_SEED", "7"))

    started, broken = _run(file, tmp_path / "cut", environment, "--local")
    kills = 0
    for moment in range(10):
        at = max(_ended(broken) + (moment % 2), round(ends * moment / 10))
        kills += _kill_after(started, broken, at, delay=draw.uniform(0, 0.1))
        with (broken / "journal.jsonl").open("a") as journal:
            journal.write('{"kind":"look","number":9,"se')  # a line the kill cut off
        _verdict(broken) if read(broken).looks else None  # a report in between spends nothing
        started = ladder.start_command("resume", broken, "--local", environment=environment)
    _, err = started.communicate(timeout=240)

    assert started.returncode == 0, err[-4000:]
    assert kills >= 8
    before, after = read(unbroken).looks, read(broken).looks
    assert after == before
    assert before[-1].over
    assert before[-1].spent == after[-1].spent
    assert _verdict(broken) == _verdict(unbroken)
    assert {p.parent.name for p in broken.glob("trials/*/result.json")} == {
        p.parent.name for p in unbroken.glob("trials/*/result.json")
    }


@pytest.mark.faults
def test_a_sweep_on_ray_makes_the_looks_of_a_local_run(tmp_path):
    pytest.importorskip("ray")
    environment = ladder.install(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    file.write_text(json.dumps(SWEEP))
    local, here = _run(file, tmp_path / "local", environment, "--local")
    _, err = local.communicate(timeout=240)
    assert local.returncode == 0, err[-4000:]

    tuned, there = _run(file, tmp_path / "ray", environment)
    _kill_after(tuned, there, 10, delay=0.05)
    tuned = ladder.start_command("resume", there, environment=environment)
    _, err = tuned.communicate(timeout=240)

    assert tuned.returncode == 0, err[-4000:]
    assert [(look.decided, look.digest, look.spent, look.open) for look in read(there).looks] == [
        (look.decided, look.digest, look.spent, look.open) for look in read(here).looks
    ]
    assert _verdict(there) == _verdict(here)
    assert "look 1, 3 seeds: decided" in err or "look 2" in err
