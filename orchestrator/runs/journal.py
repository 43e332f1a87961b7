"""The sweep's own record: one JSON object a line, appended before anything acts on it.

Everything a resumed sweep must know is here: which trials exist, what they reported, what the scheduler decided, what
the searcher proposed. Reading it back in order rebuilds the early-stopping state exactly.

=============  =====================================================================================
``kind``       other keys
=============  =====================================================================================
``sweep``      ``pid``, ``host``, ``resumed``
``suggestion``  ``arm``, ``index``, ``values``: what the searcher proposed
``trials``     ``specs``: trials were added, together or not at all; their whole specifications
``start``      ``trial``: it was handed to a worker, for the first time or again
``report``     ``trial``, ``step``, ``cost``, ``value``, ``decision``, ``rung``: one evaluation, judged; ``values``
               where several metrics are compared
``end``        ``trial``, ``status``, ``step``, ``error``
``look``       the fields of :class:`Look`: the verdict was looked at, and what was decided for good
``extension``  ``arms``, ``seeds``: seeds were added after the design had ended; they explore, and decide nothing
=============  =====================================================================================
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from orchestrator.contract.plan import TrialSpec
from orchestrator.errors import Failure, OrchestratorError, describe
from orchestrator.runs.layout import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One evaluation as the scheduler saw it. ``value`` is None where the trial did not measure what is compared."""

    trial: str
    step: int
    cost: float
    value: float | None
    decision: str  # continue or stop
    rung: float | None = None  # the cost of the rung it entered
    lost: bool = False  # the trial had measured all of it before: judged as the worst value
    values: tuple[float, ...] | None = None  # one for each metric, where several are compared; ``value`` is the first

    @property
    def measured(self) -> tuple[float, ...] | None:
        """One value for each metric compared."""
        return self.values if self.values is not None or self.value is None else (self.value,)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the searcher proposed for an arm."""

    arm: str
    index: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look of a design that adds seeds until its arms are decided. What it decided stays decided."""

    number: int  # 1-based
    seeds: int  # that every open arm was to have
    share: float  # of the most seeds, which says how much error may have been spent
    metric: str
    trials: tuple[str, ...]  # that counted
    digest: str  # of what they counted by, exactly
    counts: Mapping[str, int]  # seeds by arm, decided arms included
    decided: Mapping[str, str]  # what this look decided, by arm
    open: tuple[str, ...]  # arms that get more seeds, or that the last look left open
    spent: float  # error spent, this look included
    over: bool  # no look follows
    leader: str | None = None  # of a race: the arm in front


class Extension(NamedTuple):
    """Seeds were added after the design had ended."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]


class Added(NamedTuple):
    """A trial was added."""

    spec: TrialSpec


class End(NamedTuple):
    """A trial ended."""

    trial: str
    status: str


@dataclass(slots=True, kw_only=True)
class TrialHistory:
    """What the journal knows of one trial."""

    spec: TrialSpec
    starts: int = 0
    last_step: int = -1  # of its reports; steps only grow
    values: tuple[float, ...] | None = None  # of its last report, one for each metric; None where it lacked one
    measured: bool = False  # whether any report had them all
    cost: float = 0.0
    stopped: bool = False  # the scheduler said so
    status: str = "pending"  # pending, running, done, stopped, failed
    error: Failure | None = None

    @property
    def value(self) -> float | None:
        """Of the last report, of the first metric; None where that did not measure it."""
        return self.values[0] if self.values else None


@dataclass(slots=True, kw_only=True)
class History:
    """A journal read back."""

    sweeps: int = 0  # times a driver took it up
    trials: dict[str, TrialHistory] = field(default_factory=dict)  # in the order added
    suggestions: dict[tuple[str, int], Mapping[str, Any]] = field(default_factory=dict)  # by arm and index
    reports: list[Evaluated] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    extensions: list[Extension] = field(default_factory=list)
    log: list[Suggestion | Added | Evaluated | End] = field(default_factory=list)  # what happened, in order

    def suggest(self, suggestion: Suggestion) -> None:
        """Take in what the searcher proposed."""
        self.suggestions[suggestion.arm, suggestion.index] = suggestion.values
        self.log.append(suggestion)

    def add(self, spec: TrialSpec) -> None:
        """Take in a trial, once."""
        if spec.id not in self.trials:
            self.trials[spec.id] = TrialHistory(spec=spec)
            self.log.append(Added(spec))

    def note(self, report: Evaluated) -> None:
        """Take in a judged report."""
        trial = self.trials[report.trial]
        trial.last_step, trial.cost = report.step, report.cost
        trial.stopped = report.decision == "stop"
        trial.values = report.measured
        trial.measured = trial.measured or report.measured is not None
        self.reports.append(report)
        self.log.append(report)

    def end(self, trial: str, status: str, error: Failure | None) -> None:
        """Take in how a trial ended."""
        entry = self.trials[trial]
        entry.status, entry.error = status, error
        self.log.append(End(trial, status))


class Journal:
    """An open journal. Who opens it holds the run; see :mod:`orchestrator.runs.fence`."""

    def __init__(self, directory: Path):
        """Open the journal of a run for appending, and read what it holds into ``history``.

        A last line cut off by a crash is dropped, said aloud.

        :raises OrchestratorError: a line in its middle is no record
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.path = RunFolder(directory).journal
        self._file: IO[bytes] = self.path.open("a+b")
        self._drop_torn_line()
        self.history = read(directory)

    def append(self, records: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
        """Write records and wait until the disk has them.

        :param sync: False: hand them to the system only, which a killed driver survives but a power cut may not; for
            what other files say too
        :raises OSError: the disk is full; what was half written is dropped when the journal is next opened
        """
        lines = [json.dumps({**record, "time": time.time()}, separators=(",", ":")) for record in records]
        if not lines:
            return
        self._file.write(("\n".join(lines) + "\n").encode())
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _drop_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(0, end - 4096)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            logger.warning("%s: dropped its last line, cut off by a crash (%d bytes)", self.path, size - end)
            self._file.truncate(end)
            os.fsync(self._file.fileno())


def read(directory: Path, damage: list[str] | None = None) -> History:
    """Read the journal of a run without opening it for writing; an unfinished last line is left out.

    :param damage: takes a sentence on a line that is no record, where the reading ends; None: it is an error
    :raises OrchestratorError: a line is no record
    """
    history = History()
    path = RunFolder(directory).journal
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return history
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                record = json.loads(line)
                _apply(history, record)
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
                where = f"{path}, line {number}: no journal record ({describe(error)})"
                if damage is not None:
                    damage.append(f"{where}; read up to there")
                    break
                raise OrchestratorError(
                    f"{where}. Restore the file from a copy, or remove that line to go on without it."
                ) from error
    return history


def sweep_record(*, resumed: bool) -> dict[str, Any]:
    """A driver took the sweep up."""
    return {"kind": "sweep", "pid": os.getpid(), "host": socket.gethostname(), "resumed": resumed}


def trials_record(specs: Iterable[TrialSpec]) -> dict[str, Any]:
    """Trials were added; one line, so that a crash adds all of them or none."""
    return {"kind": "trials", "specs": [spec.to_json() for spec in specs]}


def evaluated_record(report: Evaluated) -> dict[str, Any]:
    """A trial reported an evaluation and was judged."""
    record = {"kind": "report", **dataclasses.asdict(report)}
    if report.values is None:
        del record["values"]
    return record


def look_record(look: Look) -> dict[str, Any]:
    """The verdict was looked at."""
    return {"kind": "look", **dataclasses.asdict(look)}


def extension_record(extension: Extension) -> dict[str, Any]:
    """Seeds were added after the design had ended."""
    return {"kind": "extension", **extension._asdict()}


def _apply(history: History, record: Mapping[str, Any]) -> None:
    if not isinstance(record, dict):
        raise TypeError(f"a {type(record).__name__}; expected an object")
    match record["kind"]:
        case "sweep":
            history.sweeps += 1
        case "suggestion":
            history.suggest(Suggestion(record["arm"], record["index"], record["values"]))
        case "trials":
            for fields in record["specs"]:
                history.add(TrialSpec.from_json(fields))
        case "start":
            trial = history.trials[record["trial"]]
            trial.starts += 1
            trial.status, trial.error = "running", None
        case "report":
            names = {f.name for f in dataclasses.fields(Evaluated)}
            known = {name: value for name, value in record.items() if name in names}
            if known.get("values") is not None:
                known["values"] = tuple(known["values"])
            report = Evaluated(**known)
            numbers = (report.step, report.cost, report.value or 0.0, report.rung or 0.0, *(report.values or ()))
            if not all(isinstance(number, int | float) for number in numbers):
                raise TypeError(f"a report of {numbers}; expected numbers")
            history.note(report)
        case "end":
            history.end(record["trial"], record["status"], Failure.from_json(record.get("error")))
        case "look":
            history.looks.append(_look(record))
        case "extension":
            history.extensions.append(Extension(tuple(record["arms"]), tuple(map(int, record["seeds"]))))
        case other if not isinstance(other, str):
            raise TypeError(f"a record of kind {other!r}; expected a name")
        case other:
            logger.warning("journal: skipped a record of unknown kind %r; a newer version wrote it", other)


def _look(record: Mapping[str, Any]) -> Look:
    """:raises TypeError: it is no look"""
    known = {name: record[name] for name in Look.__slots__}
    known |= {"trials": tuple(known["trials"]), "open": tuple(known["open"])}
    if not isinstance(known["counts"], dict) or not isinstance(known["decided"], dict):
        raise TypeError("a look without counts and decisions by arm; expected objects")
    return Look(**known)
