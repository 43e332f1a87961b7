"""Reads a trial's rows of metrics as they are written; what is damaged is passed over, and said."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .notes import Notes

_STEPS = 2**63  # a database's largest integer, and one


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its step, when it was written (milliseconds), and the metrics that are numbers."""

    step: int
    stamp: int
    metrics: dict[str, float] = field(default_factory=dict)


class Rows:
    """The rows of a file, each once."""

    def __init__(self, path: Path, trial: str, notes: Notes):
        self.path, self._trial, self._notes = path, trial, notes
        self._offset, self._tail = 0, b""  # where the next row begins, and the row before it

    def again(self) -> None:
        """Read from the beginning next time."""
        self._offset, self._tail = 0, b""

    @property
    def waiting(self) -> bool:
        """Whether there is something that was not read."""
        try:
            return self.path.stat().st_size != self._offset
        except FileNotFoundError:
            return False

    def new(self) -> Iterator[Row]:
        """Complete rows not read yet. A file that was cut back (a resumed trial) is read from its beginning."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(max(0, self._offset - len(self._tail)))
            if file.read(len(self._tail)) != self._tail:
                self._offset = 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._tail = line
                row = self._row(line)
                if row is not None:
                    yield row

    def _row(self, line: bytes) -> Row | None:
        try:
            found = json.loads(line)
            step, stamp, metrics = found["step"], int(found["time"] * 1000), dict(found["metrics"].items())
            if not isinstance(step, int) or not -_STEPS <= step < _STEPS:
                raise ValueError(f"{step!r} is no step")
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
            self._notes.say(f"trial {self._trial}: {self.path} has damaged rows, which do not reach MLflow")
            return None
        numbers = {name: _number(value) for name, value in metrics.items()}
        for name in sorted(name for name, number in numbers.items() if number is None):
            self._notes.say(
                f"metric {name!r} is no number in some rows ({metrics[name]!r:.40}); MLflow gets the others"
            )
        return Row(step, stamp, {name: number for name, number in numbers.items() if number is not None})


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
