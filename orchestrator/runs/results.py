"""A trial's files as the driver reads and writes them: ``result.json`` and the rows of ``metrics.jsonl``."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from orchestrator.contract.types import TrialResult
from orchestrator.runs.ledger import METRICS, read_rows

FINISHED = ("done", "stopped")  # a failed trial is played again when its run is resumed


def trial_directory(run: Path, trial: str) -> Path:
    """Where a trial keeps its files."""
    return run / "trials" / trial


def read_result(directory: Path) -> TrialResult | None:
    """Read how a trial ended; None when it has not."""
    try:
        text = (directory / "result.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    known = {field.name for field in dataclasses.fields(TrialResult)}
    return TrialResult(**{name: value for name, value in json.loads(text).items() if name in known})


def write_result(directory: Path, result: TrialResult) -> None:
    """Write ``result.json`` aside and rename it into place."""
    directory.mkdir(parents=True, exist_ok=True)
    aside = directory / f".result.json.{os.getpid()}"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(result), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(directory / "result.json")


def last_row(directory: Path, *, window: int = 16384) -> dict[str, Any] | None:
    """Read the newest complete row of ``metrics.jsonl`` from the file's last ``window`` bytes; None without one."""
    try:
        with (directory / METRICS).open("rb") as file:
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


def gather(directory: Path, *, trial: str, arm: str, seed: int, status: str, error: str | None = None) -> TrialResult:
    """Make the result of a trial that did not write its own, from the metrics it left.

    A damaged row ends the reading and is named in the error.
    """
    step, metrics = 0, {}
    try:
        for row in read_rows(directory / METRICS):
            step = max(step, int(row["step"]))
            metrics.update(row["metrics"])
    except ValueError as damage:
        error = f"{error}; {damage}" if error else str(damage)
    return TrialResult(trial=trial, arm=arm, seed=seed, status=status, step=step, metrics=metrics, error=error)
