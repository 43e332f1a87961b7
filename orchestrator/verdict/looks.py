"""Verdicts that look more than once: what a look decides, and the verdict that the looks made so far add up to.

Whoever runs trials makes looks and writes them down; a report reads what they decided, and never makes one, so that it
spends no error however often it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.contract.settings import ReportSettings
from orchestrator.maths import sequential as rule
from orchestrator.maths.sequential import Course, spent
from orchestrator.maths.statistics import Interval
from orchestrator.maths.verdict import both_sides, moments
from orchestrator.runs.curves import Curve
from orchestrator.runs.journal import Look
from orchestrator.verdict.judge import describe, summarise
from orchestrator.verdict.outcome import Comparison, Outcome, Verdict
from orchestrator.verdict.sight import Sight, see
from orchestrator.verdict.wording import interval_text, margin_text, number, percent


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What a verdict has to go by: arms, what is compared, and the curves of trials by id."""

    arms: tuple[str, ...]
    settings: ReportSettings
    metric: str
    cost_name: str
    budget: float | None
    curves: dict[str, Curve]

    def sight(self, trials: Sequence[str] | None = None) -> Sight:
        """What the given trials count by; None: all.

        :raises ValueError: none of them has a curve
        """
        wanted = self.curves if trials is None else [trial for trial in trials if trial in self.curves]
        return see([self.curves[trial] for trial in wanted], self.arms, self.budget)


def make_look(evidence: Evidence, earlier: Sequence[Look], *, seeds: int, most: int, running: Sequence[str]) -> Look:
    """Look at all there is and decide what can be decided.

    :param earlier: looks made before, in order
    :param seeds: that every open arm was to have by now
    :param most: seeds of an arm at the last look
    :param running: arms that have trials at all
    """
    sight = evidence.sight()
    look = Look(
        number=len(earlier) + 1,
        seeds=seeds,
        share=seeds / most,
        metric=evidence.metric,
        trials=tuple(evidence.curves),
        digest=sight.digest,
        counts=sight.counts,
        decided={},
        open=(),
        spent=spent(seeds / most, evidence.settings.confidence),
        over=False,
    )
    found = _looked(evidence, sight, [*earlier, look])
    decided = {
        one.arm: str(one.outcome)
        for one in found.comparisons
        if one.arm not in decided_before(earlier) and one.outcome is not Outcome.UNDECIDED and not one.tied
    }
    before = decided_before(earlier)
    still = tuple(
        arm for arm in running if arm not in decided and arm not in before and (found.race or arm != found.leader)
    )
    tied = {one.arm for one in found.comparisons if one.tied} | ({found.leader} if found.leader_tied else set())
    over = seeds >= most or not still or (found.race and (len(still) < 2 or set(still) <= tied))
    if over and found.race:
        decided |= {one.arm: str(one.outcome) for one in found.comparisons if one.tied and one.arm in still}
        still = tuple(arm for arm in still if arm not in decided and arm != found.leader)
    return replace(look, decided=decided, open=still, over=over, leader=found.leader if found.race else None)


def decided_before(looks: Sequence[Look]) -> dict[str, Look]:
    """Arms that looks decided, and the look that did."""
    return {arm: look for look in looks for arm in look.decided}


def judge_looks(evidence: Evidence, looks: Sequence[Look]) -> Verdict:
    """The verdict that looks add up to.

    :param looks: made so far, of which the last had trials to look at
    """
    doubts = []
    shown: dict[str, Comparison] = {}
    for place, look in enumerate(looks):
        if not look.trials:  # none had ended well
            continue
        there = [trial for trial in look.trials if trial in evidence.curves]
        sight = evidence.sight(there or None)
        if sight.digest != look.digest:
            doubts.append(
                f"Look {look.number} was made of other values than the trials' files hold now; what it decided stands."
            )
        found = _looked(evidence, sight, looks[: place + 1])
        last = place == len(looks) - 1
        for one in found.comparisons:
            if one.arm in look.decided:
                outcome = Outcome(look.decided[one.arm])
                shown[one.arm] = replace(one.comparison(outcome, look), reason=one.reason(outcome, evidence, look))
            elif last and one.arm not in shown:
                shown[one.arm] = replace(
                    one.comparison(Outcome.UNDECIDED, look), reason=one.reason(Outcome.UNDECIDED, evidence, look)
                )
    baseline = found.leader
    comparisons = tuple(
        shown.get(arm) or Comparison(arm=arm, baseline=baseline, outcome=Outcome.UNDECIDED, reason="it has no trial")
        for arm in evidence.arms
        if arm != baseline
    )
    confidence = evidence.settings.confidence
    return Verdict(
        headline="",
        metric=evidence.metric,
        mode=evidence.settings.mode,
        confidence=confidence,
        margin=evidence.settings.margin,
        cost=sight.cost,
        window=sight.window,
        cost_name=evidence.cost_name,
        baseline=baseline,
        arms=summarise(evidence.arms, sight, confidence),
        comparisons=tuple(describe(one, sight, evidence.settings.mode, confidence) for one in comparisons),
        bound=found.bound if np.isfinite(found.bound) else None,
        final=looks[-1].over,
        costless=sight.costless,
        compare=evidence.settings.compare,
        looks=tuple(looks),
        doubts=tuple(doubts),
    )


def judge_race(evidence: Evidence, *, final: bool) -> Verdict:
    """Which arm is the best, of trials that were all planned beforehand: a race of one look."""
    sight = evidence.sight()
    only = Look(
        number=1,
        seeds=max(sight.counts.values()),
        share=1.0,
        metric=evidence.metric,
        trials=tuple(evidence.curves),
        digest=sight.digest,
        counts=sight.counts,
        decided={},
        open=evidence.arms,
        spent=1 - evidence.settings.confidence,
        over=True,
    )
    decided = {one.arm: str(one.outcome) for one in _looked(evidence, sight, [only]).comparisons if final}
    settled = {arm: outcome for arm, outcome in decided.items() if outcome != Outcome.UNDECIDED}
    return replace(judge_looks(evidence, [replace(only, decided=settled, over=final)]), looks=())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arm:
    """An arm at one look, against the baseline or, in a race, the arm in front."""

    arm: str
    baseline: str
    outcome: Outcome
    tied: bool = False  # in a race: within the margin of the best, which decides once the race is over
    difference: float | None
    error: float | None
    bound: float
    within: float | None  # distance of the interval that is held against the margin
    reach: float | None = None  # of a race: how far the best may be above the arm

    @property
    def margin_interval(self) -> Interval | None:
        if self.difference is None or not self.error or self.within is None or not np.isfinite(self.within):
            return None
        return Interval(self.difference - self.within * self.error, self.difference + self.within * self.error)

    def comparison(self, outcome: Outcome, look: Look) -> Comparison:
        interval = None
        if self.difference is not None and self.error and np.isfinite(self.bound):
            low, high = self.difference - self.bound * self.error, self.difference + self.bound * self.error
            named = outcome in (Outcome.BETTER, Outcome.WORSE)
            above, below = named and self.difference > 0, named and self.difference < 0
            interval = Interval(max(low, 0.0) if above else low, min(high, 0.0) if below else high)
        return Comparison(
            arm=self.arm,
            baseline=self.baseline,
            outcome=outcome,
            reason="",
            difference=self.difference,
            interval=interval,
            equivalence_interval=self.margin_interval,
            look=look.number,
            seeds=(look.counts.get(self.arm, 0), look.counts.get(self.baseline, 0)),
        )

    def reason(self, outcome: Outcome, evidence: Evidence, look: Look) -> str:
        margin = margin_text(evidence.settings.margin)
        if outcome in (Outcome.BETTER, Outcome.WORSE):
            return ""
        if outcome is Outcome.EQUIVALENT and evidence.settings.compare == "best":
            return (
                f"the best, whichever it is, is at most {number(self.reach)} better, less than the margin of {margin}"
            )
        if outcome is Outcome.EQUIVALENT:
            level = percent(both_sides(evidence.settings.confidence))
            return f"the {level} interval {interval_text(self.margin_interval)} lies within {margin}"
        if min(look.counts.get(self.arm, 0), look.counts.get(self.baseline, 0)) < 2:
            return f"{self.arm} or {self.baseline} has fewer than two seeds, which cannot tell a method from its luck"
        if not self.error or self.difference is None:
            return "the seeds show no spread at all, so that nothing tells the arms from their luck"
        away = abs(self.difference) / self.error
        goes_on = "; it gets more seeds" if not look.over else ""
        return f"{number(away)} standard errors from {self.baseline}, and {number(self.bound)} were needed{goes_on}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    comparisons: tuple[_Arm, ...]
    leader: str  # the baseline; of a race the arm in front
    bound: float
    race: bool
    leader_tied: bool = False


def _looked(evidence: Evidence, sight: Sight, looks: Sequence[Look]) -> _Look:
    """What the last of some looks says; ``looks`` say what was decided before it, and which seeds there were."""
    return (_raced if evidence.settings.compare == "best" else _compared)(evidence, sight, looks)


def _compared(evidence: Evidence, sight: Sight, looks: Sequence[Look]) -> _Look:
    settings = evidence.settings
    baseline = settings.baseline or evidence.arms[0]
    columns = [baseline, *(arm for arm in evidence.arms if arm != baseline)]
    before = decided_before(looks[:-1])
    named = [arm for arm, look in before.items() if look.decided[arm] != Outcome.EQUIVALENT]
    means, variances, course = _course(columns, sight, looks)
    found = rule.look(
        means,
        variances,
        course,
        open_arms=[place for place, arm in enumerate(columns) if place and arm not in before],
        named_before=[columns.index(arm) for arm in named],
        confidence=settings.confidence,
        margin=settings.margin,
    )
    sign = 1 if settings.mode == "max" else -1
    arms = []
    for place, arm in enumerate(columns[1:]):
        outcome = Outcome.EQUIVALENT if found.equivalent[place] else Outcome.UNDECIDED
        if found.named[place]:
            outcome = Outcome.BETTER if sign * found.named[place] > 0 else Outcome.WORSE
        known = bool(np.isfinite(found.difference[place]))
        arms.append(
            _Arm(
                arm=arm,
                baseline=baseline,
                outcome=outcome,
                difference=float(found.difference[place]) if known else None,
                error=float(found.error[place]) if known else None,
                bound=float(found.bounds[place]),
                within=float(found.margins[place]) if settings.margin is not None else None,
            )
        )
    return _Look(comparisons=tuple(arms), leader=baseline, bound=found.bound, race=False)


def _raced(evidence: Evidence, sight: Sight, looks: Sequence[Look]) -> _Look:
    settings, arms = evidence.settings, evidence.arms
    sign = 1 if settings.mode == "max" else -1
    fallen = {arm for arm, look in decided_before(looks[:-1]).items() if look.decided[arm] == Outcome.WORSE}
    means, variances, course = _course(arms, sight, looks)
    live = [place for place, arm in enumerate(arms) if arm not in fallen]
    found = rule.race(
        sign * means, variances, course, live=live, confidence=settings.confidence, margin=settings.margin
    )
    front = int(found.leader)
    shrunk = _errors(variances, course)
    compared = []
    for place, arm in enumerate(arms):
        if place == front:
            continue
        known = looks[-1].counts.get(arm, 0) > 1 and looks[-1].counts.get(arms[front], 0) > 1
        tied = bool(found.tied[place])
        outcome = Outcome.EQUIVALENT if tied else Outcome.UNDECIDED
        if found.behind[place]:
            outcome = Outcome.WORSE
        compared.append(
            _Arm(
                arm=arm,
                baseline=arms[front],
                outcome=outcome,
                tied=tied,
                difference=float(means[place] - means[front]) if known else None,
                error=float(np.hypot(shrunk[place], shrunk[front])) if known else None,
                bound=float(found.bounds[place]),
                within=None,
                reach=float(found.reach[place]) if np.isfinite(found.reach[place]) else None,
            )
        )
    return _Look(
        comparisons=tuple(compared),
        leader=arms[front],
        bound=float(found.bounds[front]),
        race=True,
        leader_tied=bool(found.tied[front]),
    )


def _course(columns: Sequence[str], sight: Sight, looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray, Course]:
    """Means and variances of arms, any number for those of fewer than two seeds, and the looks as they were made."""
    means, variances = np.zeros(len(columns)), np.zeros(len(columns))
    there = [place for place, arm in enumerate(columns) if len(sight.values[arm]) > 1]
    if there:
        samples = [list(sight.values[columns[place]].values()) for place in there]
        means[there], variances[there], _ = moments(samples)
    counts = tuple(tuple(look.counts.get(arm, 0) for arm in columns) for look in looks)
    return means, variances, Course(counts=counts, shares=tuple(look.share for look in looks))


def _errors(variances: np.ndarray, course: Course) -> np.ndarray:
    """Standard errors of means, by arm; 0 for one that is not there."""
    counts = np.array([path[-1] for path in course.paths])
    there = np.flatnonzero(counts > 1)
    found = np.zeros(len(counts))
    if there.size:
        found[there] = np.sqrt(rule.shrunken(variances[there], counts[there].tolist()) / counts[there])
    return found


def progress_lines(looks: Sequence[Look], confidence: float) -> Iterator[str]:
    """What looks decided, one line each."""
    for look in looks:
        decided = ", ".join(f"{arm} {outcome}" for arm, outcome in look.decided.items()) or "nothing"
        front = f", {look.leader} in front" if look.leader else ""
        still = f"; open: {', '.join(look.open)}" if look.open else ""
        yield (
            f"look {look.number}, {look.seeds} seeds: decided {decided}{front}{still}; "
            f"{percent(look.spent)} of {percent(1 - confidence)} error spent"
        )
