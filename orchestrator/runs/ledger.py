"""A trial's rows on disk, one JSON object a line: what resume, report and trackers rely on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.runs.atomic import written_aside


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
        with self.path.open("ab") as file:
            file.write(text.encode())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows in order; a torn last line is left out.

        :raises ValueError: a line that is no JSON, not the last
        """
        return read_rows(self.path)

    def rewind(self, step: int, **other: int) -> None:
        """Forget all rows after a step, and a torn last line.

        :param other: steps for rows of a kind of their own: ``evaluation=9``
        """
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row["step"] <= other.get(row.get("kind", ""), step)]
        with written_aside(self.path) as file:
            file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in kept)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a torn last line is left out, a torn line elsewhere is an error.

    :raises ValueError: a line that is no JSON, not the last
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                if not file.read(1):
                    return
                raise ValueError(f"{path}:{number}: not a JSON row: {line[:80]!r}") from error
            yield row


def last_row(path: Path, *, window: int = 16384) -> dict[str, Any] | None:
    """Read the newest complete row of a ledger from the file's last ``window`` bytes; None without one."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - window))
            tail = file.read()
    except FileNotFoundError:
        return None
    for line in reversed(tail[: tail.rfind(b"\n") + 1].splitlines()):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the first line of the window is usually cut
        if isinstance(row, dict) and "step" in row:
            return row
    return None


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as plain floats, those that are not finite left out: neither JSON nor trackers take them."""
    plain = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if math.isfinite(value)}
