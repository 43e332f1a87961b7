"""Adds seeds look by look: when a look is due, what it decides, and which trials follow from it.

A look is made when every trial it waits for has ended, and written down before any trial that follows from it. What it
decides depends on the files of ended trials and on the looks before it alone, so that a driver that was killed before
it wrote the look makes the same one again, and one killed afterwards finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.runs.journal import History, Look
from orchestrator.runs.read import read
from orchestrator.runs.study import merge
from orchestrator.verdict.looks import decided_before, make_look, progress_lines
from orchestrator.verdict.study import evidence

logger = logging.getLogger(__name__)


class Looks:
    """The looks of one run. A plan that lists its seeds has none."""

    def __init__(self, plan: Plan, directory: Path, history: History):
        """:param history: of the run's journal, kept up to date by the caller"""
        self._plan, self._directory, self._history = plan, directory, history
        self._design = plan.experiment.sequential
        self._blind = False

    @property
    def over(self) -> bool:
        """Whether no look will be made any more."""
        made = self._history.looks
        return self._design is None or self._blind or bool(made and made[-1].over)

    def counts(self, spec: TrialSpec) -> bool:
        """Whether a trial may still have a say, so that one which failed is worth another try."""
        added = any(spec.arm in one.arms and spec.seed in one.seeds for one in self._history.extensions)
        return spec.phase is not Phase.CONFIRM or added or self._goes_on(spec.arm)

    def make(self) -> Look | None:
        """Make the look that is due; None where there is nothing to look at, so that none will ever be made."""
        design = self._design
        assert design is not None
        number = len(self._history.looks)
        seeds = design.course[number]
        run = read(self._directory, self._plan)
        study = merge([run])
        metric = self._history.looks[-1].metric if self._history.looks and self._history.looks[-1].metric else None
        given, why = evidence(study, metric)
        running = list(self._values())
        if not running:
            self._blind = True
            return None
        if given is None or not given.curves:
            failed = all(trial.status == "failed" for trial in study.confirmations)
            if not failed or seeds >= design.at_most:
                self._blind = True
                logger.error("no look can be made, so no seeds are added: %s", why or "no trial measured anything")
                return None
            return self._nothing_to_see(number + 1, seeds, running)
        return make_look(given, self._history.looks, seeds=seeds, most=design.at_most, running=running)

    def following(self) -> list[TrialSpec]:
        """Trials that follow from the last look."""
        if self._design is None or not self._history.looks or self._history.looks[-1].over:
            return []
        from orchestrator.experiment import planner as plans

        last = len(self._history.looks)
        arms = [arm for arm in self._values() if self._goes_on(arm)]
        seeds = range(self._design.course[last - 1], self._design.course[last])
        return list(plans.confirmations(self._plan, {arm: self._values()[arm] for arm in arms}, seeds))

    def said(self) -> str:
        """What the last look decided, in one line."""
        confidence = self._plan.experiment.report.confidence
        return list(progress_lines(self._history.looks, confidence))[-1]

    def _goes_on(self, arm: str) -> bool:
        made = self._history.looks
        if self._design is None or not made:
            return True
        return not made[-1].over and (arm in made[-1].open or arm == self._baseline)

    @property
    def _baseline(self) -> str | None:
        report = self._plan.experiment.report
        return None if report.compare == "best" else report.baseline or next(iter(self._plan.arms))

    def _values(self) -> Mapping[str, Mapping[str, Any]]:
        """Searched values by arm, of the arms that are confirmed, in the plan's order."""
        specs = (*self._plan.trials, *(entry.spec for entry in self._history.trials.values()))
        found = {spec.arm: spec.searched for spec in specs if spec.phase is Phase.CONFIRM}
        return {arm: found[arm] for arm in self._plan.arms if arm in found}

    def _nothing_to_see(self, number: int, seeds: int, running: list[str]) -> Look:
        """A look at which no trial had ended well: nothing is decided and no error spent."""
        before = decided_before(self._history.looks)
        return Look(
            number=number,
            seeds=seeds,
            share=seeds / self._plan.experiment.sequential.at_most if self._plan.experiment.sequential else 1.0,
            metric="",
            trials=(),
            digest="",
            counts=dict.fromkeys(self._plan.arms, 0),
            decided={},
            open=tuple(arm for arm in running if arm not in before and arm != self._baseline),
            spent=0.0,
            over=False,
        )
