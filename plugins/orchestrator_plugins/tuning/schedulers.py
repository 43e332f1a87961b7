"""Who is stopped early: pure judges of what was reported and decided before.

Kept from Ray Tune: the stopping form of asynchronous successive halving, number for number. Changed: costs are real
numbers (generated tokens) that trials meet unevenly, rungs are made as they are reached, and nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, median

from orchestrator.api import Decision, Judged, TrialEnd, TrialReport

from .config import AshaConfig, MedianConfig


class Asha:
    """Asynchronous successive halving, stopping form.

    A trial that reaches a rung goes on when its score is at least the (1 - 1/factor) quantile of those that reached the
    rung before it. The first to reach a rung always goes on.
    Source: Li et al. 2018 (arXiv:1810.05934), algorithm 2; stopping in place of promotion as in Ray Tune's ASHA.
    """

    def __init__(self, config: AshaConfig):
        self.config = config

    def judge(self, report: TrialReport, before: Sequence[Judged | TrialEnd]) -> Decision:
        """Judge one evaluation: only the highest rung reached counts, and each trial enters a rung once."""
        if report.cost <= 0:
            return Decision(stop=False)
        milestone = self._grace(report, before)
        if report.cost < milestone:
            return Decision(stop=False)
        while milestone * self.config.factor <= report.cost:
            milestone *= self.config.factor
        rung = {
            judged.report.trial: _worst_if_nan(judged.report.score)
            for judged in _judged(before)
            if judged.decision.rung == milestone
        }
        if report.trial in rung:
            return Decision(stop=False)
        score = _worst_if_nan(report.score)
        stop = bool(rung) and score < _quantile(list(rung.values()), 1 - 1 / self.config.factor)
        return Decision(stop=stop, rung=milestone)

    def _grace(self, report: TrialReport, before: Sequence[Judged | TrialEnd]) -> float:
        """Cost of the lowest rung: trials a little cheaper than the first must meet it too."""
        if self.config.grace is not None:
            return self.config.grace
        return 0.9 * next((j.report.cost for j in _judged(before) if j.report.cost > 0), report.cost)


class Median:
    """Median stopping rule.

    A trial is stopped when its best score so far is below the median of the other trials' running means at the same
    cost. A trial's running mean at a cost is the mean of what it reported up to that cost.
    Source: Golovin et al. 2017 (doi:10.1145/3097983.3098043), sec. 3.2.2.
    """

    def __init__(self, config: MedianConfig):
        self.config = config

    def judge(self, report: TrialReport, before: Sequence[Judged | TrialEnd]) -> Decision:
        """Judge one evaluation."""
        cost = report.cost
        if cost < self.config.grace or cost <= 0:
            return Decision(stop=False)
        reports: dict[str, list[tuple[float, float]]] = {}  # (cost, score) by trial
        for told in (*(judged.report for judged in _judged(before)), report):
            reports.setdefault(told.trial, []).append((told.cost, _worst_if_nan(told.score)))
        own = reports.pop(report.trial)
        means = [
            fmean(score for at, score in told if at <= cost)
            for told in reports.values()
            if told[-1][0] >= cost and told[0][0] <= cost
        ]
        if len(means) < self.config.minimum:
            return Decision(stop=False)
        return Decision(stop=max(score for _, score in own) < median(means))


def _judged(before: Sequence[Judged | TrialEnd]) -> Iterator[Judged]:
    return (event for event in before if isinstance(event, Judged))


def _worst_if_nan(score: float) -> float:
    return -math.inf if math.isnan(score) else score


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
