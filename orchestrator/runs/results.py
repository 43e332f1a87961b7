"""How a trial ended: ``TrialResult`` on disk, with the checksums of the files it leaves."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure, describe
from orchestrator.runs import checksums
from orchestrator.runs.atomic import write_json
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.ledger import numbers, read_rows
from orchestrator.runs.repair import damage_of_rows

logger = logging.getLogger(__name__)

FINISHED = ("done", "stopped")  # a failed trial is run again when its run is resumed


def read_result(folder: TrialFolder, damage: list[str] | None = None) -> TrialResult | None:
    """Read how a trial ended; None when it has not, or that cannot be read.

    :param damage: takes a sentence on a file that cannot be read; None: it is logged
    """
    try:
        return _result(json.loads(folder.result.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        said = f"{folder.result} cannot be read: {describe(error)}"
        if damage is None:
            logger.warning("%s", said)
        else:
            damage.append(said)
        return None


def read_finished(folder: TrialFolder) -> TrialResult | None:
    """The result of a trial that need not be run again; None: it has not ended well, or its files were damaged."""
    result = read_result(folder)
    if result is None or result.status not in FINISHED:
        return None
    damage = damage_of_rows(folder, result.step)
    if damage is not None:
        logger.warning("%s. The trial had ended; it is run again", damage)
        return None
    return result


def _result(found: Any) -> TrialResult:
    """:raises ValueError: these data are no result"""
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not a result")
    known = {field.name for field in dataclasses.fields(TrialResult)}
    result = TrialResult(**{name: value for name, value in found.items() if name in known})
    expected = {
        "trial": str,
        "arm": str,
        "seed": int,
        "status": str,
        "step": int,
        "metrics": Mapping,
        "summary": Mapping,
    }
    for name, kind in expected.items():
        if not isinstance(getattr(result, name), kind):
            raise ValueError(f"{name} is {getattr(result, name)!r:.40}; expected a {kind.__name__}")
    return dataclasses.replace(result, metrics=numbers(result.metrics))


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

    A damaged row ends the reading and is named in the error, and so is a file that cannot be read.
    """
    step = 0
    metrics: dict[str, Any] = {}
    try:
        for row in read_rows(folder.metrics):
            step = max(step, int(row["step"]))
            metrics.update(numbers(row["metrics"]))
    except (OSError, ValueError, TypeError, LookupError) as damage:
        said = Failure.of(damage)
        error = dataclasses.replace(error, message=f"{error.message}; {said.reason}") if error else said
    return TrialResult(trial=trial, arm=arm, seed=seed, status=status, step=step, metrics=metrics, error=error)
