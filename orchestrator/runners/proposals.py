"""Asks searchers: one for each arm, told all that is known of the arm's search."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from orchestrator.contract.plan import Plan
from orchestrator.contract.search import Goal
from orchestrator.errors import PluginContractError, blame
from orchestrator.experiment.tuning import search_of
from orchestrator.plugging.registry import Registry
from orchestrator.runs.journal import History, Suggestion
from orchestrator.runs.searched import known, tried


class Proposals:
    """What is tried next, arm by arm."""

    def __init__(self, plan: Plan, goals: tuple[Goal, ...], history: History, registry: Callable[[], Registry]):
        """:param registry: asked when a searcher is first needed"""
        self._plan, self._goals, self._history, self._registry = plan, goals, history, registry
        self._parts: dict[str, Any] = {}  # by arm
        self._nothing: dict[str, int] = {}  # events after which an arm's searcher had nothing to propose

    @functools.cached_property
    def adaptive(self) -> bool:
        """Whether proposals depend on results; where they do not, the plan holds them all."""
        arms = list(self._plan.arms)
        return bool(self._plan.experiment.search and arms) and bool(self._searcher(arms[0]).component.adaptive)

    def next(self, without: Collection[str] = ()) -> Suggestion | None:
        """The next configuration of the arm that has the fewest; None while nobody has one to propose.

        :param without: arms that are left out
        :raises PluginContractError: the searcher proposed something that is not in the space
        """
        counts = {arm: len(tried(self._history, arm, self._goals)) for arm in self._plan.arms if arm not in without}
        for arm, index in sorted(counts.items(), key=lambda pair: pair[1]):  # arms take turns
            if index >= self._plan.experiment.tune.samples:
                continue
            recorded = self._history.suggestions.get((arm, index))
            if recorded is not None:
                return Suggestion(arm, index, recorded)
            values = self._proposed(arm)
            if values is not None:
                return Suggestion(arm, index, values)
        return None

    def _proposed(self, arm: str) -> dict[str, Any] | None:
        now = known(self._history, arm, self._goals)
        if self._nothing.get(arm) == len(now.events):
            return None  # knowing as much it had nothing
        about, part = search_of(self._plan.experiment, arm), self._searcher(arm)
        with blame(part.whom):
            values = part.component.propose(about, now)
            if values is None:
                self._nothing[arm] = len(now.events)
                return None
            misfit = about.space.misfit(values)
            if misfit is not None:
                raise PluginContractError(misfit)
        return dict(values)

    def _searcher(self, arm: str) -> Any:
        if arm not in self._parts:
            spec = self._plan.experiment.tune.searcher
            self._parts[arm] = self._registry().part("searcher", spec.use, spec.options)
        return self._parts[arm]
