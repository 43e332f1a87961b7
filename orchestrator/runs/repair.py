"""What becomes of a trial whose rows were damaged: it is run again, since no other trial can measure what is lost."""

from __future__ import annotations

import logging
import shutil
from itertools import takewhile

from orchestrator.runs import checksums
from orchestrator.runs.atomic import remove
from orchestrator.runs.layout import TrialFolder
from orchestrator.runs.ledger import Ledger, read_rows

logger = logging.getLogger(__name__)


def damage_of_rows(folder: TrialFolder, step: int) -> str | None:
    """What is wrong with the rows of a trial that has ended; None: they are as they were written, or readable.

    :param step: the last one it measured
    """
    if checksums.matches(folder.path, folder.metrics):
        return None
    damage: list[str] = []
    reached = max((_step(row) for row in read_rows(folder.metrics, damage)), default=0)
    if damage:
        return damage[0]
    if folder.metrics.name in checksums.sealed(folder.path) and reached < step:
        return f"{folder.metrics}: its rows end at step {reached} of {step}"
    return None


def forget_if_damaged(folder: TrialFolder, *, every_step: bool) -> None:
    """Let a trial begin anew whose rows do not reach its newest checkpoint; the damaged file is kept aside.

    Rows after the checkpoint are written again anyway, damaged or not.

    :param every_step: whether a row was written for every step, so that one that is missing is known to be lost
    """
    for left in folder.path.glob(f".{folder.checkpoints.name}.*.removed"):  # by a process that was killed meanwhile
        shutil.rmtree(left, ignore_errors=True)
    if not folder.checkpoints.is_dir():
        return
    from orchestrator.runs.checkpoint import checkpoints, reach

    found = checkpoints(folder.checkpoints)
    saved, evaluated = reach(found[-1]) if found else (0, -1)
    damage: list[str] = []
    for row in read_rows(folder.metrics, damage):
        if not damage and (_step(row) < 0 or not isinstance(row.get("metrics"), dict)):
            damage.append(f"{folder.metrics}: no row of metrics: {str(row)[:80]}")
    rows = takewhile(lambda row: isinstance(row.get("metrics"), dict), Ledger(folder.metrics).intact())
    sound = [(_step(row), row.get("kind")) for row in rows]
    if damage and max((step for step, _ in sound), default=0) <= saved:
        reason = damage[0]
    elif every_step and (reached := max((step for step, kind in sound if kind == "step"), default=0)) < saved:
        reason = f"{folder.metrics}: its rows end at step {reached}, and the newest checkpoint is of step {saved}"
    elif every_step and max((step for step, kind in sound if kind == "evaluation"), default=-1) < evaluated:
        reason = (
            f"{folder.metrics}: it lacks the evaluation after step {evaluated}, which the newest checkpoint counts on"
        )
    else:
        return
    kept = folder.metrics.with_name(f"{folder.metrics.name}.damaged")
    if folder.metrics.exists():
        folder.metrics.replace(kept)
    remove(folder.checkpoints)
    logger.warning("%s. The trial is run again from its beginning; what was left of its rows: %s", reason, kept)


def _step(row: dict) -> int:
    step = row.get("step")
    return step if isinstance(step, int) else -1
