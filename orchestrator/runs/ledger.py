"""A trial's rows on disk, one JSON object a line: what resume, report and trackers rely on."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Rows
from orchestrator.runs.atomic import naming, written_aside

logger = logging.getLogger(__name__)


class Ledger:
    """Appends rows to a JSONL file of a trial; can forget what came after a checkpoint."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, kind: str, **content: Any) -> None:
        """Append one row with its step, kind and time."""
        self.write({"step": step, "kind": kind, "time": round(time.time(), 3), **content})

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Append rows, each with its ``step``; a single write, so that a kill tears at most the last line."""
        if not rows:
            return
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        with naming(self.path), self.path.open("ab") as file:
            file.write(text.encode())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows in order; a torn last line is left out.

        :raises ValueError: a line that is no row, not the last
        """
        return read_rows(self.path)

    def intact(self) -> list[dict[str, Any]]:
        """Rows with a step, up to the first that is damaged, whatever comes after."""
        found: list[dict[str, Any]] = []
        try:
            for row in self.rows():
                if not isinstance(row.get("step"), int):
                    break
                found.append(row)
        except ValueError:
            pass  # whoever asks wants what stands before it
        return found

    def rewind(self, step: int, **other: int) -> None:
        """Forget all rows after a step, and what is damaged, said aloud where it is not the last line.

        :param other: steps for rows of a kind of their own: ``evaluation=9``
        """
        if not self.path.exists():
            return
        damage: list[str] = []
        rows = [row for row in read_rows(self.path, damage) if isinstance(row.get("step"), int)]
        kept = [row for row in rows if row["step"] <= other.get(str(row.get("kind", "")), step)]
        if damage and kept:
            logger.warning("%s; left out, with %d damaged lines in all", damage[0], len(damage))
        with written_aside(self.path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in kept)


def read_rows(path: Path, damage: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file, each an object; a torn last line is left out, a torn line elsewhere is an error.

    :param damage: takes a sentence for each line that is no row, which is then passed over; None: it is an error
    :raises ValueError: a line that is no JSON object, not the last
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a {type(row).__name__}")
            except (ValueError, RecursionError) as error:
                last = file.read(1)
                if not last:
                    return
                file.seek(-1, os.SEEK_CUR)
                said = f"{path}:{number}: not a JSON row: {line[:80]!r}"
                if damage is None:
                    raise ValueError(said) from error
                damage.append(said)
                continue
            yield row


def last_row(path: Path, *, window: int = 16384) -> dict[str, Any] | None:
    """Read the newest complete row of a ledger, with its step and metrics, from the file's last ``window`` bytes.

    :returns: None without one
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - window))
            tail = file.read()
    except OSError:
        return None
    for line in reversed(tail[: tail.rfind(b"\n") + 1].splitlines()):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the first line of the window is usually cut
        if isinstance(row, dict) and isinstance(row.get("step"), int) and isinstance(row.get("metrics"), dict):
            return row
    return None


def numbers(metrics: Any) -> dict[str, float]:
    """Metrics as a file has them, those that are no numbers left out.

    :raises TypeError: these are no metrics
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics are a {type(metrics).__name__}; expected numbers by name")
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as plain floats, those that are not finite left out: neither JSON nor trackers take them."""
    plain = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if math.isfinite(value)}


def last_metrics(rows: Rows) -> dict[str, float]:
    """The last value of every metric that rows hold."""
    metrics: dict[str, float] = {}
    for row in rows.rows():
        metrics |= row["metrics"]
    return metrics
