"""Rounds: whose weights act, whose are the result, when the reference moves, where the next round starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator.contract.batch import Weights
from orchestrator.contract.parts import Part
from orchestrator.contract.roles import BetweenRounds
from orchestrator.contract.settings import Schedule
from orchestrator.errors import blame
from orchestrator.training.weights import BEHAVIOUR, WeightStore

RESULT = "result"
"""The trained weights while an objective has moved the current ones on to the next round's start."""


class Rounds:
    """What ``schedule.steps_per_round`` steps share: the weights that act and those referred to."""

    def __init__(
        self,
        schedule: Schedule,
        weights: WeightStore,
        policy: Part,
        objective: Part,
        needed: frozenset[Weights],
        forget_moments: Callable[[], None],
    ):
        """Take up the rounds of a trial.

        :param needed: versions of the weights whose statistics somebody needs; only those are kept
        :param forget_moments: starts the optimiser afresh, where the schedule says so
        """
        self._schedule, self._weights, self._needed = schedule, weights, needed
        self._policy, self._objective, self._forget_moments = policy, objective, forget_moments
        self._extrapolates = isinstance(objective.component, BetweenRounds)

    def begin(self, *, first: bool, last: bool = False) -> None:
        """Freeze what the coming round samples from and refers to; keep only what somebody needs.

        :param last: no round follows, so there is nothing to move on to
        """
        schedule, weights = self._schedule, self._weights
        if not first:
            if self._extrapolates:
                self._extrapolate(last=last)
            elif Weights.PREVIOUS in self._needed:
                weights.keep(Weights.PREVIOUS)
            if schedule.refresh_optimizer == "round":
                self._forget_moments()
        elif self._extrapolates or Weights.PREVIOUS in self._needed:
            weights.keep(Weights.PREVIOUS)
        if Weights.REFERENCE in self._needed and (first or schedule.refresh_reference == "round"):
            weights.keep(Weights.REFERENCE)
        if schedule.steps_per_round > 1:
            weights.keep(BEHAVIOUR)
        if schedule.steps_per_round > 1 or first or self._extrapolates:
            self.refresh()

    def begins_with(self, step: int) -> bool:
        """Whether a step is the first of its round."""
        return (step - 1) % self._schedule.steps_per_round == 0

    def ends_with(self, step: int) -> bool:
        """Whether a step is the last of its round."""
        return step > 0 and step % self._schedule.steps_per_round == 0

    @property
    def acting(self) -> str:
        """The version that samples, and that the policy was last refreshed with: the round's weights while it lasts."""
        return BEHAVIOUR if BEHAVIOUR in self._weights else Weights.CURRENT

    def result(self, step: int) -> str:
        """The version that is evaluated and saved: between rounds of an extrapolating objective, the trained weights."""
        return RESULT if self.ends_with(step) and RESULT in self._weights else Weights.CURRENT

    def refresh(self) -> None:
        """Carry the current weights to whatever the policy acts with."""
        with blame(self._policy.whom):
            self._policy.component.refresh()

    def act_again(self) -> None:
        """Let the policy act with what it acted with before the trial was interrupted."""
        with self._weights.loaded(self.acting):
            self.refresh()

    @contextmanager
    def showing(self, step: int) -> Iterator[None]:
        """Let the policy act with the result's weights for the block."""
        shown = self.result(step)
        with self._weights.loaded(shown):
            if shown != self.acting:
                self.refresh()
            yield
        if shown != self.acting:
            self.act_again()

    def _extrapolate(self, *, last: bool) -> None:
        """Let the objective place the next round's start; the trained weights stay the result until it trains on."""
        trained = self._weights.current()
        self._weights.keep(RESULT, trained)
        if not last:
            with blame(self._objective.whom):
                start = self._objective.component.between_rounds(trained, dict(self._weights.get(Weights.PREVIOUS)))
            self._weights.load(start)
        self._weights.keep(Weights.PREVIOUS, trained)
