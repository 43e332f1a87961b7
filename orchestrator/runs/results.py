"""How a trial ended: ``TrialResult`` on disk, with the checksums of the files it leaves."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure
from orchestrator.runs import checksums
from orchestrator.runs.atomic import write_json
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.ledger import read_rows

FINISHED = ("done", "stopped")  # a failed trial is run again when its run is resumed


def read_result(folder: TrialFolder) -> TrialResult | None:
    """Read how a trial ended; None when it has not."""
    try:
        text = folder.result.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    known = {field.name for field in dataclasses.fields(TrialResult)}
    return TrialResult(**{name: value for name, value in json.loads(text).items() if name in known})


def write_result(folder: TrialFolder, result: TrialResult) -> None:
    """Write down how a trial ended, then the checksums of what it leaves."""
    checksums.unseal(folder.path)
    write_json(folder.result, dataclasses.asdict(result), indent=1)
    checksums.seal(folder.path, folder.recorded)


def clear_result(folder: TrialFolder) -> None:
    """Forget how a trial ended before: it is about to be run again."""
    folder.path.mkdir(parents=True, exist_ok=True)
    checksums.unseal(folder.path)
    folder.result.unlink(missing_ok=True)


def gather(
    folder: TrialFolder, *, trial: str, arm: str, seed: int, status: str, error: Failure | None = None
) -> TrialResult:
    """Make the result of a trial that did not write its own, from the metrics it left.

    A damaged row ends the reading and is named in the error.
    """
    step = 0
    metrics: dict[str, Any] = {}
    try:
        for row in read_rows(folder.metrics):
            step = max(step, int(row["step"]))
            metrics.update(row["metrics"])
    except ValueError as damage:
        said = Failure.of(damage)
        error = dataclasses.replace(error, message=f"{error.message}; {said.reason}") if error else said
    return TrialResult(trial=trial, arm=arm, seed=seed, status=status, step=step, metrics=metrics, error=error)
