"""The objective: any other, with momentum between its rounds.

Kept from the base: everything within a round, to the bit. Changed: the next round samples from, refers to and starts at
weights beyond the round's result. Left out: nothing; momentum 0 is the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from orchestrator.api import Batch, BetweenRounds, Column, Objective, ScalesGradient, Stateful, Terms, facts_of

from .config import ApoConfig
from .extrapolation import extrapolated


def apo(config: ApoConfig) -> Apo:
    """Build the objective around the one its options name."""
    return accelerated(config.base.build(), config.momentum)


def accelerated(base: Objective, momentum: float | tuple[float, ...]) -> Apo:
    """Wrap an objective, keeping its optional capabilities.

    :raises ValueError: the base chooses starts of rounds itself
    """
    if isinstance(base, BetweenRounds):
        raise ValueError(
            f"objective apo cannot wrap {type(base).__name__}, which itself chooses where rounds start; name an "
            f"objective such as dpo, ipo or sppo as base"
        )
    return (_ScalingApo if isinstance(base, ScalesGradient) else Apo)(base, momentum)


class Apo:
    """The base's terms; starts of rounds extrapolated past the last result."""

    def __init__(self, base: Objective, momentum: float | tuple[float, ...]):
        self.base, self.momentum = base, momentum
        self.needs, self.couples = base.needs, base.couples
        self.inner, self.facts = {"base": base}, facts_of(base)
        self.rounds = 0  # rounds that have ended

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        return self.base.terms(batch, current)

    def between_rounds(self, trained: Mapping[str, Tensor], previous: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Where the next round starts; see :func:`extrapolation.extrapolated`."""
        momentum = self._momentum()
        self.rounds += 1
        return extrapolated(trained, previous, momentum)

    def state_dict(self) -> dict[str, Any]:
        return {"rounds": self.rounds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rounds = int(state["rounds"])
        if "base" in state and isinstance(self.base, Stateful):  # as checkpoints of version 0.1 hold it
            self.base.load_state_dict(state["base"])

    def _momentum(self) -> float:
        """Momentum after the round that ends now."""
        if not isinstance(self.momentum, tuple):
            return self.momentum
        return self.momentum[min(self.rounds, len(self.momentum) - 1)]


class _ScalingApo(Apo):
    """Of a base that scales its gradient."""

    base: Any

    def factor(self, norms: Mapping[str, float]) -> float:
        return self.base.factor(norms)
