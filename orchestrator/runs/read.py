"""Reads run folders: the plan, what every trial measured, how it ended. Unfinished runs are read as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.contract.metrics import COST
from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import Settings
from orchestrator.errors import Failure
from orchestrator.experiment.planner import start_key, start_settings
from orchestrator.runs import checksums, journal, machine
from orchestrator.runs.curves import Curve
from orchestrator.runs.layout import RunFolder, TrialFolder
from orchestrator.runs.ledger import numbers, read_rows
from orchestrator.runs.results import read_result
from orchestrator.runs.searched import Searched, searched
from orchestrator.runs.store import load_plan


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialData:
    """One trial as its files tell it.

    :ivar spec: what was to run
    :ivar folder: where its files are
    :ivar status: ``pending``, ``running``, ``done``, ``stopped`` (early) or ``failed``
    :ivar error: why it failed
    :ivar summary: a plugin's own results, plain JSON; empty until the trial has ended
    :ivar rows: of metrics, by time: each with ``step``, ``kind`` and ``metrics`` by name
    :ivar run: name of its run's folder
    :ivar arm: the arm's name in this study
    """

    spec: TrialSpec
    folder: TrialFolder
    status: str
    error: Failure | None = None
    summary: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...] = ()
    run: str
    arm: str

    @property
    def id(self) -> str:
        """The trial's id, unique in its run."""
        return self.spec.id

    @property
    def seed(self) -> int:
        """The trial's seed."""
        return self.spec.seed

    @property
    def phase(self) -> Phase:
        """What the trial is for."""
        return self.spec.phase

    @property
    def settings(self) -> Settings:
        """What the trial ran with, searched values included."""
        return self.spec.settings

    @cached_property
    def last(self) -> dict[str, float]:
        """Last value of every metric."""
        merged: dict[str, float] = {}
        for row in self.rows:
            merged.update(row["metrics"])
        return merged

    @property
    def costs(self) -> dict[str, float]:
        """What the trial has spent, by name of the counter: ``cost/generated_tokens``, ``cost/seconds``, ..."""
        return {name: value for name, value in self.last.items() if name.startswith("cost/")}

    @property
    def step(self) -> int:
        """Last step measured."""
        return max((int(row["step"]) for row in self.rows), default=0)

    def series(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and finite values of a metric, [n] float64 each, in order; the last value of a step counts."""
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
            arm=self.arm,
            seed=self.spec.seed,
            steps=np.array(steps, dtype=float),
            costs=np.array([points[step][0] for step in steps]),
            values=np.array([points[step][1] for step in steps]),
        )

    def evaluations(self) -> Iterator[tuple[int, dict[str, tuple[int, int]]]]:
        """Each evaluation's step, and (rollouts, right ones) by held-out task.

        :raises ValueError: a damaged row
        """
        for row in read_rows(self.folder.evaluations):
            try:
                tasks = {task: (int(count), int(right)) for task, (count, right) in row["tasks"].items()}
                yield int(row["step"]), tasks
            except (TypeError, LookupError, AttributeError, OverflowError) as error:
                raise ValueError(f"{self.folder.evaluations}: no row of an evaluation: {str(row)[:80]}") from error

    def rollouts(self) -> Iterator[Mapping[str, Any]]:
        """The transcripts that were kept, one row a group: its step, task and rollouts, as plain JSON.

        :raises ValueError: a damaged row
        """
        return read_rows(self.folder.rollouts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run folder.

    :ivar directory: where it is
    :ivar plan: what was to run
    :ivar trials: start phases apart
    :ivar machine: what ran it, where it was recorded
    :ivar starts: start phases that trials share
    :ivar warnings: what could not be read, or was changed since
    :ivar searched: what the search of each arm tried and chose
    :ivar looks: that were made of a design that adds seeds until arms are decided
    :ivar extended: arm and seed of trials added after the design had ended, which decide nothing
    """

    directory: Path
    plan: Plan
    trials: tuple[TrialData, ...]
    machine: Mapping[str, str] | None = None
    starts: tuple[TrialData, ...] = ()
    warnings: tuple[str, ...] = ()
    searched: tuple[Searched, ...] = ()
    looks: tuple[journal.Look, ...] = ()
    extended: frozenset[tuple[str, int]] = frozenset()


def read(directory: Path, plan: Plan | None = None) -> Run:
    """Read one run folder.

    :param plan: of the run; None: the one in the folder
    :raises ConfigError: there is no readable plan in it
    """
    directory = Path(directory)
    folder, plan = RunFolder(directory), plan or load_plan(directory)
    warnings: list[str] = []
    added = journal.read(directory, warnings)
    specs = {spec.id: spec for spec in (*plan.trials, *(history.spec for history in added.trials.values()))}
    trials = tuple(_trial(spec, folder.trial(spec.id), warnings) for spec in specs.values())
    strays = sorted({found.path.name for found in folder.trials()} - specs.keys())
    if strays:
        warnings.append(f"{directory.name}: no specification of {', '.join(strays)}; left out")
    return Run(
        directory=directory,
        plan=plan,
        trials=trials,
        machine=machine.read(directory),
        starts=tuple(_starts(folder, plan, warnings)),
        warnings=tuple(warnings),
        searched=searched(plan, added),
        looks=tuple(added.looks),
        extended=frozenset((arm, seed) for one in added.extensions for arm in one.arms for seed in one.seeds),
    )


def _starts(folder: RunFolder, plan: Plan, warnings: list[str]) -> Iterator[TrialData]:
    found = folder.starts()
    if not found:
        return
    phases: dict[str, Settings] = {}
    waiting = list(plan.arms.values())
    while waiting:
        settings = waiting.pop()
        phase = start_settings(settings)
        if phase is not None:
            phases[start_key(settings)] = phase
            waiting.append(phase)
    for start in found:
        key = start.path.name
        settings = phases.get(key) or next(iter(plan.arms.values()), plan.experiment)  # of a searched start
        spec = TrialSpec(id=key, arm="start", seed=0, phase=Phase.START, settings=settings)
        yield _trial(spec, start, warnings)


def _trial(spec: TrialSpec, folder: TrialFolder, warnings: list[str]) -> TrialData:
    damage: list[str] = []
    result = read_result(folder, damage)
    rows: list[Mapping[str, Any]] = []
    try:
        for row in read_rows(folder.metrics):
            if isinstance(row.get("metrics"), dict) and isinstance(row.get("step"), int):
                rows.append({**row, "metrics": numbers(row["metrics"])})
            else:
                damage.append(f"{folder.metrics.name} has a row without step or metrics, left out: {str(row)[:80]}")
    except (OSError, ValueError) as error:
        damage.append(f"read up to a broken line: {error}")
    warnings += [f"{spec.id}: {said}" for said in damage]
    warnings += [f"{spec.id}: {damage}" for damage in checksums.broken(folder.path)]
    seen = [(row.get("kind"), row["step"]) for row in rows]
    if len(set(seen)) < len(seen):
        repeated = len(seen) - len(set(seen))
        warnings.append(f"{spec.id}: {repeated} rows of {folder.metrics.name} repeat a step; the last counts")
    return TrialData(
        spec=spec,
        folder=folder,
        status=result.status if result else "running" if rows else "pending",
        error=result.error if result else None,
        summary=result.summary if result else {},
        rows=tuple(rows),
        run=folder.path.parents[1].name,
        arm=spec.arm,
    )
