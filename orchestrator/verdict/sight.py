"""What a verdict looks at: the curves of all arms, read over the same stretch of the common cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.maths import verdict as rule
from orchestrator.maths.statistics import Interval
from orchestrator.runs.curves import Curve, by_arm, common_cost, costless


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sight:
    """What every seed counts by."""

    cost: float
    window: Interval
    curves: Mapping[str, Sequence[Curve]]  # by arm
    values: Mapping[str, Mapping[int, float]]  # by arm and seed
    costless: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Seeds by arm."""
        return {arm: len(values) for arm, values in self.values.items()}

    @property
    def digest(self) -> str:
        """Of the values, to the last bit."""
        exact = {arm: {seed: value.hex() for seed, value in found.items()} for arm, found in self.values.items()}
        return hashlib.sha256(json.dumps(exact, sort_keys=True).encode()).hexdigest()[:16]


def see(curves: Sequence[Curve], arms: Sequence[str], budget: float | None = None) -> Sight:
    """Read curves over the last fifth of the cost which all of them reach.

    :param arms: all arms, also those without a curve
    :param budget: cost at which to compare, where all curves reach it
    :raises ValueError: without curves
    """
    grouped = by_arm(curves)
    cost = common_cost(curves, budget)
    window = Interval((1 - rule.WINDOW) * cost, cost)
    values = {arm: {curve.seed: curve.over(*window) for curve in grouped.get(arm, [])} for arm in arms}
    return Sight(cost=cost, window=window, curves=grouped, values=values, costless=costless(curves))
