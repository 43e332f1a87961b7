"""Optuna's pruners as a scheduler: their steps are generated tokens, and trials are compared at equal ones.

Trials report at costs of their own, and Optuna compares at equal steps. So, when a trial is judged, every other trial is
given values at its steps too: the last score it had by then, where it came that far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.api import Decision, Judged, Problem, Search, TrialEnd, TrialReport

from .config import PrunerConfig
from .named import make, optuna


@dataclass(slots=True)
class _Trial:
    scores: list[tuple[int, float]] = field(default_factory=list)  # by step: generated tokens
    kept: Mapping[str, Any] = field(default_factory=dict)  # what the pruner wrote on it
    status: str = "running"


class OptunaPruner:
    """Asks a pruner of Optuna, which may write on trials: in a resumed run it judges all reports over again, in order."""

    def __init__(self, config: PrunerConfig):
        self.config = config
        self._latest: tuple[TrialReport, Mapping[str, Any]] | None = None  # judged, and not known to be decided yet
        self._restart()

    def judge(self, report: TrialReport, before: Sequence[Judged | TrialEnd]) -> Decision:
        """Judge one evaluation."""
        if self._seen != list(before[: len(self._seen)]):
            self._restart()
        for event in before[len(self._seen) :]:
            self._take(event)
            self._seen.append(event)
        stop, kept = self._asked(report)
        self._latest = report, kept
        return Decision(stop=stop)

    def check_search(self, search: Search) -> Sequence[Problem]:
        """Thresholds are written in the metric, and judged in scores."""
        if self.config.pruner == "ThresholdPruner" and search.goals[0].mode == "min":
            message = (
                "ThresholdPruner cannot do with a metric of which less is better; use another pruner, or its negative"
            )
            return [Problem("tune.scheduler", message)]
        return []

    def _restart(self) -> None:
        self._pruner = make("pruner", self.config.pruner, self.config.options, "scheduler")
        self._seen: list[Judged | TrialEnd] = []
        self._trials: dict[str, _Trial] = {}
        self._latest = None

    def _take(self, event: Judged | TrialEnd) -> None:
        if isinstance(event, TrialEnd):
            if event.trial in self._trials:
                self._trials[event.trial].status = event.status
            return
        report = event.report
        if self._latest is None or self._latest[0] != report:
            self._latest = report, self._asked(report)[1]
        trial = self._trials.setdefault(report.trial, _Trial())
        trial.scores.append((int(report.cost), report.score))
        trial.status, trial.kept = "running", self._latest[1]

    def _asked(self, report: TrialReport) -> tuple[bool, Mapping[str, Any]]:
        """Whether the pruner stops the trial, and what it wrote on it."""
        study = optuna("scheduler").create_study(direction="maximize", study_name="search", pruner=self._pruner)
        own = dict(
            [
                *(self._trials[report.trial].scores if report.trial in self._trials else ()),
                (int(report.cost), report.score),
            ]
        )
        names = list(dict.fromkeys([*self._trials, report.trial]))
        for name in names:
            trial = self._trials.get(name, _Trial())
            current = name == report.trial
            study.add_trial(_frozen(trial, own if current else _laid_out(trial.scores, own), running=current))
        number = names.index(report.trial)
        stop = bool(self._pruner.prune(study, study.trials[number]))
        return stop, study.trials[number].system_attrs


def _laid_out(scores: Sequence[tuple[int, float]], steps: Mapping[int, float]) -> dict[int, float]:
    """Scores at their own steps, and at those of another trial as far as this one came."""
    found = dict(scores)
    for step in steps:
        if scores and scores[0][0] <= step <= scores[-1][0]:
            found[step] = next(score for at, score in reversed(scores) if at <= step)
    return found


def _frozen(trial: _Trial, scores: Mapping[int, float], *, running: bool) -> Any:
    from optuna.trial import TrialState, create_trial

    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    state = TrialState.RUNNING if running else states.get(trial.status, TrialState.RUNNING)
    last = trial.scores[-1][1] if trial.scores else math.nan
    if state is TrialState.COMPLETE and math.isnan(last):
        state = TrialState.FAIL
    return create_trial(
        state=state,
        value=last if state is TrialState.COMPLETE else None,
        intermediate_values=dict(scores),
        system_attrs=dict(trial.kept),
    )
