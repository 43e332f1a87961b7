"""Who is stopped early: pure judges of (trial, cost, value), so that replaying a journal rebuilds them exactly.

Kept from Ray Tune: the stopping form of asynchronous successive halving, number for number. Changed: costs are real
numbers (generated tokens) that trials meet unevenly, rungs are made as they are reached, and nothing is random.
"""

from __future__ import annotations

import math
from statistics import fmean, median
from typing import NamedTuple, Protocol

from orchestrator.contract.settings import AshaScheduler, MedianScheduler


class Verdict(NamedTuple):
    """What to do with a trial that reported, and the cost of the rung it entered, if it entered one."""

    stop: bool
    rung: float | None = None


class Scheduler(Protocol):
    """A judge of one population of trials."""

    def report(self, trial: str, cost: float, value: float) -> Verdict:
        """Judge one evaluation.

        :param cost: spent so far, generated tokens; grows with each report of a trial
        :param value: what is compared; more is better; nan counts as the worst
        """


class Asha:
    """Asynchronous successive halving, stopping form.

    A trial that reaches a rung goes on when its value is at least the (1 - 1/factor) quantile of those that reached the
    rung before it. The first to reach a rung always goes on.
    Source: Li et al. 2018 (arXiv:1810.05934), algorithm 2; stopping in place of promotion as in Ray Tune's ASHA.
    """

    def __init__(self, config: AshaScheduler):
        self.config = config
        self.grace = config.grace
        self.rungs: dict[float, dict[str, float]] = {}  # cost of the rung to value by trial

    def report(self, trial: str, cost: float, value: float) -> Verdict:
        """Judge one evaluation: only the highest rung reached counts, and each trial enters a rung once."""
        if cost <= 0:
            return Verdict(stop=False)
        if self.grace is None:
            self.grace = 0.9 * cost  # trials a little cheaper than the first must meet the rung too
        if cost < self.grace:
            return Verdict(stop=False)
        milestone = self.grace
        while milestone * self.config.factor <= cost:
            milestone *= self.config.factor
        rung = self.rungs.setdefault(milestone, {})
        if trial in rung:
            return Verdict(stop=False)
        value = -math.inf if math.isnan(value) else value
        stop = bool(rung) and value < _quantile(list(rung.values()), 1 - 1 / self.config.factor)
        rung[trial] = value
        return Verdict(stop=stop, rung=milestone)


class Median:
    """Median stopping rule.

    A trial is stopped when its best value so far is below the median of the other trials' running means at the same
    cost. A trial's running mean at a cost is the mean of what it reported up to that cost.
    """

    def __init__(self, config: MedianScheduler):
        self.config = config
        self._reports: dict[str, list[tuple[float, float]]] = {}  # (cost, value) by trial

    def report(self, trial: str, cost: float, value: float) -> Verdict:
        """Judge one evaluation."""
        value = -math.inf if math.isnan(value) else value
        self._reports.setdefault(trial, []).append((cost, value))
        if cost < self.config.grace or cost <= 0:
            return Verdict(stop=False)
        means = [
            fmean(v for c, v in reports if c <= cost)
            for other, reports in self._reports.items()
            if other != trial and reports[-1][0] >= cost and reports[0][0] <= cost
        ]
        if len(means) < self.config.minimum:
            return Verdict(stop=False)
        best = max(v for _, v in self._reports[trial])
        return Verdict(stop=best < median(means))


def make(spec: AshaScheduler | MedianScheduler | str) -> Scheduler | None:
    """Make a fresh scheduler as ``tune.scheduler`` asks for; None for ``none``."""
    match spec:
        case AshaScheduler():
            return Asha(spec)
        case MedianScheduler():
            return Median(spec)
    return None


def _quantile(values: list[float], share: float) -> float:
    """Linear quantile that stays defined when some values are minus infinity."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    if below == above or place == math.floor(place):
        return below
    if math.isinf(below):
        return below
    return below + (place - math.floor(place)) * (above - below)
