"""A plugin of its own, made a distribution in a temporary folder, with the sweeps the tests play on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import Experiment, Settings

HERE = Path(__file__).parent
WALL_CLOCK = ("cost/seconds", "cost/device_seconds", "time/")


def install(folder: Path) -> dict[str, str]:
    """Lay the plugin out as an installed distribution and return an environment that finds it, and what this one does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ladder_world.py").write_text((HERE / "ladder_world.py").read_text())
    info = folder / "ladder_world-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ladder-world\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nladder = ladder_world\n")
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def experiment(environment: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    """An experiment of a very small policy on the ladder."""
    return {
        "name": "ladder",
        "environment": {"use": "ladder", **environment},
        "policy": {"use": "mlp", "hidden": [4]},
        "sampler": {"use": "group", "count": 2},
        "advantage": {"use": "group_mean"},
        "objective": {"use": "reinforce"},
        "schedule": {"steps": 8, "tasks_per_step": 2},
        "evaluation": {"every": 2, "tasks": 4, "samples": 4},
        "checkpoints": {"every": 2},
        "tracking": {"enabled": False, "transcripts": 0},
        **sections,
    }


def plan(trials: Mapping[str, Mapping[str, Any]], experiment: Mapping[str, Any] | None = None, **sections: Any) -> Plan:
    """A plan of one trial per entry: its id and the options of its environment."""
    specs = tuple(
        TrialSpec(id=name, arm=name, seed=0, phase=Phase.CONFIRM, settings=_settings(options, **sections))
        for name, options in trials.items()
    )
    shared = Experiment.model_validate({"name": "ladder", "environment": {"use": "ladder"}, **(experiment or {})})
    return Plan(name="ladder", experiment=shared, trials=specs, fingerprint={})


def start_driver(made: Plan, directory: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Play a plan on Ray Tune in a process of its own; it prints one JSON object when it is done."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "test-plan.json").write_text(made.to_json())
    path = {"PYTHONPATH": f"{environment['PYTHONPATH']}:{HERE.parent}"}
    return _start(["-m", "ladder", str(directory)], {**environment, **path})


def start_command(*arguments: str | Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Start the command line in a process of its own."""
    return _start(["-c", "from orchestrator.cli.main import main; main()", *map(str, arguments)], environment)


def run_directory(runs: Path, started: subprocess.Popen, timeout: float = 60) -> Path:
    """The directory of the only run in a folder, once it is there."""
    deadline = time.monotonic() + timeout
    while not (found := list(runs.glob("ladder-*/plan.json"))):
        assert started.poll() is None, started.communicate()[1][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (plan,) = found
    return plan.parent


def finish(driver: subprocess.Popen, timeout: float = 240) -> dict[str, Any]:
    """Wait for a driver and return what it printed."""
    out, err = driver.communicate(timeout=timeout)
    assert driver.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


def steps_of(directory: Path) -> list[tuple[str, int, dict[str, float]]]:
    """The rows of a trial's metrics without what a clock wrote."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [
        (row["kind"], row["step"], {k: v for k, v in row["metrics"].items() if not k.startswith(WALL_CLOCK)})
        for row in rows
    ]


def starts(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Trials in the order they were handed to workers."""
    return [record["trial"] for record in records if record["kind"] == "start"]


def journal(directory: Path) -> list[dict[str, Any]]:
    """The complete records of a run's journal."""
    path = directory / "journal.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _settings(environment: Mapping[str, Any], **sections: Any) -> Settings:
    return Settings.model_validate(experiment(environment, **sections))
