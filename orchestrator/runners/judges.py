"""Asks schedulers: one for each arm's tuning trials, told all that happened among them, in the journal's order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.search import Decision, Goal, Judged, TrialEnd, TrialReport
from orchestrator.contract.sections import ComponentSpec
from orchestrator.errors import PluginContractError, blame
from orchestrator.plugging.registry import Registry
from orchestrator.runs.journal import End, Evaluated, History


class Judges:
    """The schedulers of a sweep, and what each has been told."""

    def __init__(self, plan: Plan, goal: Goal, registry: Callable[[], Registry]):
        """:param registry: asked when a scheduler is first needed"""
        self._spec, self._searches = plan.experiment.tune.scheduler, bool(plan.experiment.search)
        self._goal, self._registry = goal, registry
        self._schedulers: dict[str, Any] = {}  # parts, by population
        self._told: dict[str, list[Judged | TrialEnd]] = {}  # by population

    def population(self, spec: TrialSpec) -> str | None:
        """Which trials a trial is compared with; None: with none.

        Arms do not compete for each other's tuning budget; without a search all trials are one population.
        """
        if not isinstance(self._spec, ComponentSpec) or (self._searches and spec.phase is not Phase.TUNE):
            return None
        return spec.arm if self._searches else "all"

    def judge(self, spec: TrialSpec, step: int, cost: float, value: float) -> Decision:
        """Judge one evaluation of a trial.

        :raises PluginContractError: the scheduler decided something that is no decision
        """
        population = self.population(spec)
        if population is None:
            return Decision(stop=False)
        report = TrialReport(spec.id, step, cost, self._goal.sign * value)
        part = self._scheduler(population)
        with blame(part.whom):
            decision = part.component.judge(report, self._told.setdefault(population, []))
            if not _is_decision(decision):
                raise PluginContractError(
                    f"judge returned {decision!r}; expected Decision(stop=True or False, rung=cost or None)"
                )
        return decision

    def take(self, history: History, event: Any) -> None:
        """Note an event of the journal: a judged report, or a trial's end."""
        if not isinstance(event, Evaluated | End):
            return
        population = self.population(history.trials[event.trial].spec)
        if population is None:
            return
        told = self._told.setdefault(population, [])
        if isinstance(event, End):
            told.append(TrialEnd(event.trial, event.status))
        elif event.value is not None or event.lost:
            value = math.nan if event.value is None else event.value
            report = TrialReport(event.trial, event.step, event.cost, self._goal.sign * value)
            told.append(Judged(report, Decision(stop=event.decision == "stop", rung=event.rung)))

    def _scheduler(self, population: str) -> Any:
        if population not in self._schedulers:
            assert isinstance(self._spec, ComponentSpec)
            self._schedulers[population] = self._registry().part("scheduler", self._spec.use, self._spec.options)
        return self._schedulers[population]


def _is_decision(decision: Any) -> bool:
    if not isinstance(decision, Decision) or not isinstance(decision.stop, bool):
        return False
    rung = decision.rung
    return rung is None or (isinstance(rung, int | float) and not isinstance(rung, bool) and math.isfinite(rung))
