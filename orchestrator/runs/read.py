"""Reads run directories: the plan, what every trial measured, how it ended. Unfinished runs are read as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.errors import ConfigError, Problem
from orchestrator.runs.curves import Curve
from orchestrator.runs.ledger import METRICS, read_rows
from orchestrator.runs.machine import MACHINE

COST = "cost/generated_tokens"
FINISHED = ("done", "stopped")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialData:
    """One trial as its files tell it."""

    spec: TrialSpec
    directory: Path
    status: str  # pending, running, done, stopped (early) or failed
    error: str | None = None
    rows: tuple[Mapping[str, Any], ...] = ()  # of metrics.jsonl, by time
    arm: str = ""  # the arm's name in this report

    @cached_property
    def last(self) -> dict[str, float]:
        """Last value of every metric."""
        merged: dict[str, float] = {}
        for row in self.rows:
            merged.update(row["metrics"])
        return merged

    @property
    def step(self) -> int:
        """Last step measured."""
        return max((int(row["step"]) for row in self.rows), default=0)

    def series(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and finite values of a metric, in order; the last value of a step counts."""
        found = {}
        for row in self.rows:
            value = row["metrics"].get(metric)
            if value is not None and np.isfinite(value):
                found[int(row["step"])] = float(value)
        steps = np.array(sorted(found), dtype=float)
        return steps, np.array([found[step] for step in sorted(found)])

    def curve(self, metric: str, cost: str | None = COST) -> Curve | None:
        """The metric against what was spent; None when it was never measured.

        :param cost: the counter to lay it out by; None: steps
        """
        points: dict[int, tuple[float, float]] = {}
        spent = 0.0
        for row in self.rows:
            spent = max(spent, float(row["metrics"].get(cost, 0.0))) if cost else float(row["step"])
            value = row["metrics"].get(metric)
            if value is not None and np.isfinite(value):
                points[int(row["step"])] = (spent, float(value))
        if not points:
            return None
        steps = sorted(points)
        return Curve(
            arm=self.arm or self.spec.arm,
            seed=self.spec.seed,
            steps=np.array(steps, dtype=float),
            costs=np.array([points[step][0] for step in steps]),
            values=np.array([points[step][1] for step in steps]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run directory."""

    directory: Path
    plan: Plan
    trials: tuple[TrialData, ...]
    machine: Mapping[str, Any] | None = None  # what ran it, where it was recorded
    starts: tuple[TrialData, ...] = ()  # shared start phases
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All the runs of one report, their arms told apart."""

    runs: tuple[Run, ...]
    trials: tuple[TrialData, ...]  # of all runs
    arms: tuple[str, ...]
    settings: Mapping[str, Settings]  # resolved settings by arm
    warnings: tuple[str, ...] = ()
    experiment: Experiment  # of the first run

    @property
    def confirmations(self) -> tuple[TrialData, ...]:
        """Trials that enter the verdict once they are finished."""
        return tuple(trial for trial in self.trials if trial.spec.phase is Phase.CONFIRM)

    @property
    def tuning(self) -> tuple[TrialData, ...]:
        """Trials that only chose settings."""
        return tuple(trial for trial in self.trials if trial.spec.phase is Phase.TUNE)


def read(directory: Path) -> Run:
    """Read one run directory.

    :raises ConfigError: there is no readable ``plan.json`` in it
    """
    directory = Path(directory)
    try:
        plan = Plan.from_json((directory / "plan.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            [Problem(str(directory), "no plan.json; expected a run directory, such as runs/<name>-<time>")]
        ) from None
    except ValueError as error:
        raise ConfigError([Problem(str(directory / "plan.json"), f"not a plan: {error}")]) from error
    warnings: list[str] = []
    specs = {spec.id: spec for spec in (*plan.trials, *_added(directory, warnings))}
    trials = tuple(_trial(spec, directory / "trials" / spec.id, warnings) for spec in specs.values())
    strays = sorted(set(_folders(directory / "trials")) - specs.keys())
    if strays:
        warnings.append(f"{directory.name}: no specification of {', '.join(strays)}; left out")
    starts = tuple(
        _trial(
            TrialSpec(id=name, arm="start", seed=0, phase=Phase.START, settings=plan.experiment),
            directory / "start" / name,
            warnings,
        )
        for name in _folders(directory / "start")
    )
    return Run(
        directory=directory,
        plan=plan,
        trials=trials,
        machine=_json(directory / MACHINE),
        starts=starts,
        warnings=tuple(warnings),
    )


def merge(runs: Sequence[Run]) -> Study:
    """Lay several runs side by side.

    Arms of one name and equal settings are one arm, with the seeds of both; arms of one name and different settings
    are told apart by the run's name. A seed that ran twice counts once, the first time.

    :raises ValueError: without runs
    """
    if not runs:
        raise ValueError("no run to report on; expected at least one directory")
    settings: dict[str, Settings] = {}
    trials: list[TrialData] = []
    warnings = [warning for run in runs for warning in run.warnings]
    taken: set[tuple[str, int]] = set()
    for run in runs:
        names = {}
        for arm, config in _arms(run).items():
            name = arm
            if name in settings and comparable(settings[name]) != comparable(config):
                name = f"{arm} ({run.directory.name})"
            settings.setdefault(name, config)
            names[arm] = name
        for trial in run.trials:
            arm = names[trial.spec.arm]
            key = (arm, trial.spec.seed)
            if trial.spec.phase is Phase.CONFIRM:
                if key in taken:
                    warnings.append(
                        f"{arm}, seed {trial.spec.seed}: also in {run.directory.name}; the first run counts"
                    )
                    continue
                taken.add(key)
            trials.append(replace(trial, arm=arm))
    if len({json.dumps(_world(config), sort_keys=True) for config in settings.values()}) > 1:
        warnings.append(
            "arms were evaluated under different settings or in different environments: see the table of settings"
        )
    return Study(
        runs=tuple(runs),
        trials=tuple(trials),
        arms=tuple(settings),
        settings=settings,
        warnings=tuple(warnings),
        experiment=runs[0].plan.experiment,
    )


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by dotted path; lists of components by index."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            flat |= flatten({str(index): item for index, item in enumerate(value)}, f"{path}.")
        else:
            flat[path] = value
    return flat


def differences(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings that are not the same in all arms: dotted path to value by arm; absent means not set."""
    flat = {arm: flatten(config) for arm, config in settings.items()}
    paths = dict.fromkeys(path for values in flat.values() for path in values)
    found = {}
    for path in paths:
        values = {arm: flat[arm].get(path) for arm in flat}
        if len({json.dumps(value, sort_keys=True, default=str) for value in values.values()}) > 1:
            found[path] = values
    return found


def comparable(settings: Settings) -> dict[str, Any]:
    """What makes two arms the same arm: their settings without names, trackers and machines."""
    return settings.model_dump(mode="json", exclude={"name", "tracking", "resources", "report", "checkpoints"})


def _arms(run: Run) -> dict[str, Settings]:
    """Resolved settings by arm, with the searched values chosen for confirmation."""
    found = dict(run.plan.arms)
    for trial in run.trials:
        if trial.spec.phase is Phase.CONFIRM:
            found[trial.spec.arm] = trial.spec.settings
        else:
            found.setdefault(trial.spec.arm, trial.spec.settings)
    return found


def _world(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", include={"environment", "evaluation"})


def _trial(spec: TrialSpec, directory: Path, warnings: list[str]) -> TrialData:
    result = _json(directory / "result.json") or {}
    rows: list[Mapping[str, Any]] = []
    try:
        for row in read_rows(directory / METRICS):
            if isinstance(row, dict) and isinstance(row.get("metrics"), dict) and "step" in row:
                rows.append(row)
    except ValueError as error:
        warnings.append(f"{spec.id}: read up to a broken line: {error}")
    seen = [(row.get("kind"), row["step"]) for row in rows]
    if len(set(seen)) < len(seen):
        warnings.append(f"{spec.id}: {len(seen) - len(set(seen))} rows of metrics.jsonl repeat a step; the last counts")
    status = result.get("status") or ("running" if rows else "pending")
    return TrialData(spec=spec, directory=directory, status=status, error=result.get("error"), rows=tuple(rows))


def _added(directory: Path, warnings: list[str]) -> Iterable[TrialSpec]:
    """Specifications of trials that were added while the sweep ran, from its journal."""
    path = directory / "journal.jsonl"
    try:
        for record in read_rows(path):
            if record.get("kind") == "trials":
                for spec in record["specs"]:
                    yield TrialSpec.from_json(spec)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.append(f"{path}: read up to a line that is no record: {error}")


def _folders(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
