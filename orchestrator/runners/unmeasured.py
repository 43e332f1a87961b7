"""Notices that what a search compares is nowhere measured, so that an arm's tuning ends before its budget is spent."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from orchestrator.contract.metrics import COMPARED, comes_and_goes
from orchestrator.contract.plan import Phase, Plan
from orchestrator.contract.search import Goal
from orchestrator.errors import Failure, did_you_mean
from orchestrator.runs.journal import History, TrialHistory
from orchestrator.runs.results import FINISHED

logger = logging.getLogger(__name__)

_ENDED = 2  # trials of an arm that ended without a metric that may come later, before the arm is given up


class Unmeasured:
    """The arms whose tuning is over because their trials measure nothing that could be compared."""

    def __init__(self, plan: Plan, goals: Sequence[Goal], history: History):
        self._plan, self._goals, self._history = plan, goals, history
        self._failures: dict[str, Failure] = {}  # by arm
        self._shown_by: dict[str, str] = {}  # by arm, the trial that showed it
        self._warned: set[str] = set()  # arms

    @property
    def arms(self) -> Collection[str]:
        """Those given up."""
        return self._failures.keys()

    def failure(self, entry: TrialHistory) -> Failure | None:
        """Why a trial must end; None where it may go on."""
        arm = entry.spec.arm
        if entry.spec.phase is not Phase.TUNE or arm not in self._failures:
            return None
        if self._shown_by[arm] == entry.spec.id:
            return self._failures[arm]
        return Failure(
            type="TrialError", message=f"ended with the tuning of arm {arm}: see trial {self._shown_by[arm]}"
        )

    def look(self, entry: TrialHistory, measured: Collection[str]) -> None:
        """Look at an evaluation of a tuning trial; the arm is given up if it lacks a metric that no later one will have.

        :param measured: names of what it measured, values that are not finite included
        """
        lacking = self._lacking(measured)
        if not lacking or self._measures(entry.spec.arm):
            return
        may_come = entry.spec.settings.procedure != "train" or all(comes_and_goes(name, measured) for name in lacking)
        if not may_come:
            self._give_up(entry, lacking, measured, "its evaluations measure")
        elif entry.spec.arm not in self._warned:
            self._warned.add(entry.spec.arm)
            logger.warning(
                "arm %s has measured no %s yet, which the search compares. Measured: %s",
                entry.spec.arm,
                " and no ".join(lacking),
                ", ".join(sorted(measured)),
            )

    def look_at_end(self, entry: TrialHistory, measured: Collection[str]) -> None:
        """Look at a tuning trial that has run to its end; the arm is given up if that is one too many without the metric."""
        lacking = self._lacking(measured)
        if not lacking or self._measures(entry.spec.arm):
            return
        ended = sum(one.status in FINISHED for one in self._tuning(entry.spec.arm) if one is not entry) + 1
        if ended >= _ENDED:
            self._give_up(entry, lacking, measured, f"{ended} of its trials ended and measured")

    def _give_up(self, entry: TrialHistory, lacking: Sequence[str], measured: Collection[str], said: str) -> None:
        arm, setting = entry.spec.arm, "tune.metric" if self._plan.experiment.tune.metrics else "report.metric"
        near = did_you_mean(lacking[0], measured).rstrip(".")
        right = (
            " To have pass@k, set evaluation.success_at, or let episodes say in the metric `correct` whether they were right."
            if any(name.startswith("eval/pass_at_") for name in lacking)
            else ""
        )
        shown = sorted(name for name in measured if name.startswith("eval/")) or sorted(measured)
        message = (
            f"arm {arm}: {said} no {' and no '.join(lacking)}{near}, which the search compares, so its tuning ends here. "
            f"Measured: {', '.join(shown)}.{right} Correct {setting} in the experiment's file and run that "
            "anew; a resumed run keeps its old setting"
        )
        self._shown_by[arm] = entry.spec.id
        self._failures[arm] = Failure(type="TrialError", message=message)
        logger.error("%s", message)

    def _lacking(self, measured: Collection[str]) -> list[str]:
        wanted = [(goal.metric,) if goal.metric else COMPARED for goal in self._goals]
        return [" nor ".join(names) for names in wanted if not any(name in measured for name in names)]

    def _measures(self, arm: str) -> bool:
        return any(one.measured for one in self._tuning(arm))

    def _tuning(self, arm: str) -> list[TrialHistory]:
        trials = self._history.trials.values()
        return [one for one in trials if one.spec.phase is Phase.TUNE and one.spec.arm == arm]
