"""A trial's rows on disk, one JSON object a line: what resume, report and trackers rely on."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"  # per task: how many of how many were right


class Ledger:
    """Appends rows to a JSONL file of a trial; can forget what came after a checkpoint."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def append(self, step: int, kind: str, **content: Any) -> None:
        """Append one row; a single write, so that a kill tears at most the last line."""
        row = {"step": step, "kind": kind, "time": round(time.time(), 3), **content}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows in order; a torn last line is left out."""
        return read_rows(self.path)

    def rewind(self, step: int, **other: int) -> None:
        """Forget all rows after a step, and a torn last line.

        :param other: steps for rows of a kind of their own: ``evaluation=9``
        """
        if not self.path.exists():
            return
        kept = [row for row in self.rows() if row["step"] <= other.get(row["kind"], step)]
        aside = self.path.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        aside.replace(self.path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file; a torn last line is left out, a torn line elsewhere is an error.

    :raises ValueError: a line that is no JSON, not the last
    """
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise ValueError(f"{path}:{number}: not a JSON row: {line[:80]!r}") from error


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics as plain floats, those that are not finite left out: neither JSON nor trackers take them."""
    plain = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in plain.items() if math.isfinite(value)}
