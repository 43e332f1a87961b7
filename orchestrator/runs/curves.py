"""Learning curves: what a trial measured, against what it had spent by then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.maths.verdict import window_mean


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """One metric of one trial, in the order of its steps.

    :ivar arm: the trial's arm
    :ivar seed: the trial's seed
    :ivar steps: [n] float64, rising; 0 is before training
    :ivar costs: [n] float64, spent so far, not falling: generated tokens, or the counter that was asked for
    :ivar values: [n] float64, in the metric's own unit, finite
    """

    arm: str
    seed: int
    steps: np.ndarray
    costs: np.ndarray
    values: np.ndarray

    @property
    def reach(self) -> float:
        """Cost at the last measurement."""
        return float(self.costs[-1])

    @property
    def first(self) -> float | None:
        """The value before training, where it was measured."""
        return float(self.values[0]) if self.steps[0] == 0 else None

    def at(self, cost: float | np.ndarray) -> float | np.ndarray:
        """Value at a cost, linear between measurements, held beyond the last one."""
        value = np.interp(cost, self.costs, self.values)
        return float(value) if np.ndim(cost) == 0 else value

    def over(self, low: float, high: float) -> float:
        """Mean over a stretch of the cost, exactly; at a stretch of no length, the value there."""
        return window_mean(self.costs, self.values, low, high)


def common_cost(curves: Sequence[Curve], budget: float | None = None) -> float:
    """Find the largest cost that every curve reaches, or the budget where that is smaller.

    Arms that spend nothing, see :func:`costless`, set no limit.

    :raises ValueError: without curves
    """
    if not curves:
        raise ValueError("no curves; expected at least one")
    idle = costless(curves)
    reached = min(curve.reach for curve in curves if curve.arm not in idle)
    return reached if budget is None else min(reached, float(budget))


def costless(curves: Sequence[Curve]) -> tuple[str, ...]:
    """Arms that spent nothing while others did: a start trained no further, or one trained on demonstrations alone.

    They are at every cost what they ended as.
    """
    spending = {curve.arm for curve in curves if curve.reach > 0}
    return tuple(dict.fromkeys(curve.arm for curve in curves if curve.arm not in spending)) if spending else ()


def by_arm(curves: Iterable[Curve]) -> dict[str, list[Curve]]:
    """Group curves by arm, in the order met, seeds sorted."""
    grouped: dict[str, list[Curve]] = {}
    for curve in curves:
        grouped.setdefault(curve.arm, []).append(curve)
    return {arm: sorted(found, key=lambda curve: curve.seed) for arm, found in grouped.items()}
