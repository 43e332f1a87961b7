"""The names of everything a run leaves on disk. No other file spells one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Where a trial, or a start phase that trials share, keeps its files.

    :ivar path: the folder
    """

    path: Path

    @property
    def metrics(self) -> Path:
        """Rows of metrics, one a step and one an evaluation; see :class:`orchestrator.runs.ledger.Ledger`."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """Rows of evaluations by task: how many rollouts of how many were right."""
        return self.path / "evaluations.jsonl"

    @property
    def rollouts(self) -> Path:
        """Transcripts: rows of rollout groups, as many a step as ``tracking.transcripts`` says."""
        return self.path / "rollouts.jsonl"

    @property
    def result(self) -> Path:
        """How the trial ended."""
        return self.path / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """What the worker logged while the trial ran."""
        return self.path / "trial.log"

    @property
    def hung(self) -> Path:
        """Calls that did not return in time; see :mod:`orchestrator.runs.hangs`."""
        return self.path / "hung.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the trial; see :mod:`orchestrator.runs.fence`."""
        return self.path / ".lock"

    @property
    def bad_batch(self) -> Path:
        """The batch whose loss or gradient was not finite, once too often."""
        return self.path / "non-finite-batch.safetensors"

    @property
    def recorded(self) -> tuple[Path, ...]:
        """The files whose checksums are kept once the trial has ended."""
        return self.metrics, self.evaluations, self.rollouts, self.result


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps its files.

    :ivar path: the folder
    """

    path: Path

    @property
    def plan(self) -> Path:
        """What was to run, resolved."""
        return self.path / "plan.json"

    @property
    def journal(self) -> Path:
        """What a resumed sweep must know; see :mod:`orchestrator.runs.journal`."""
        return self.path / "journal.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the run's driver; see :mod:`orchestrator.runs.fence`."""
        return self.path / ".lock"

    @property
    def machine(self) -> Path:
        """What the run ran on."""
        return self.path / "machine.json"

    @property
    def report(self) -> ReportFolder:
        """The run's own report."""
        return ReportFolder(self.path)

    def report_beside(self, *, merged: bool, metric: str | None) -> ReportFolder:
        """A report of several runs, or by another metric than the run's; the run's own where it is neither."""
        parts = ["report-merged"] if merged else []
        parts += [f"report-{metric.replace('/', '-')}"] if metric else []
        return ReportFolder(self.path.joinpath(*parts))

    @property
    def leave(self) -> Path:
        """There while the run is asked to end: who runs trials saves at the next step and leaves."""
        return self.path / ".leave"

    @property
    def scratch(self) -> Path:
        """What the machinery of a sweep keeps while it runs; of no use afterwards."""
        return self.path / ".scratch"

    @property
    def driver_log(self) -> Path:
        """What the process that drives Ray, and Ray itself, said."""
        return self.path / "driver.log"

    def trial(self, name: str) -> TrialFolder:
        """The folder of a trial, by its id."""
        return TrialFolder(self.path / "trials" / _one_name(name))

    def start(self, key: str) -> TrialFolder:
        """The folder of a shared start phase, by its content hash."""
        return TrialFolder(self.path / "start" / _one_name(key))

    def trials(self) -> list[TrialFolder]:
        """Folders of trials that are there, by name."""
        return _folders(self.path / "trials")

    def starts(self) -> list[TrialFolder]:
        """Folders of start phases that are there, by name."""
        return _folders(self.path / "start")


@dataclass(frozen=True, slots=True)
class ReportFolder:
    """Where a report is written.

    :ivar path: the folder
    """

    path: Path

    @property
    def html(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def markdown(self) -> Path:
        """The same as text."""
        return self.path / "report.md"

    @property
    def json(self) -> Path:
        """The same for machines."""
        return self.path / "report.json"

    def figure(self, name: str) -> Path:
        """One figure."""
        return self.path / "figures" / f"{name}.svg"


def _one_name(name: str) -> str:
    """The name of one folder; whatever a file says, nothing is read or written beside the run's own.

    :raises ValueError: it leads elsewhere
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no name of a trial or start phase: it leads out of the run")
    return name


def _folders(directory: Path) -> list[TrialFolder]:
    if not directory.is_dir():
        return []
    return [TrialFolder(path) for path in sorted(directory.iterdir()) if path.is_dir() and path.name[0] != "."]
