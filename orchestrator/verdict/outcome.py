"""What a verdict is: one of four answers for every arm, and the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.maths.statistics import Interval
from orchestrator.runs.journal import Look

_UNDECIDED = "not enough evidence"


class Outcome(StrEnum):
    """What the evidence says about an arm and the baseline."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"  # the difference lies within the margin declared before the run
    UNDECIDED = "undecided"  # neither a difference nor equivalence is shown, which is no evidence of equality

    @property
    def label(self) -> str:
        """The answer as people read it."""
        return _UNDECIDED if self is Outcome.UNDECIDED else self.value

    @classmethod
    def _missing_(cls, value: object) -> Outcome | None:
        return cls.UNDECIDED if value == _UNDECIDED else None  # as reports wrote it before there were four answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary:
    """One arm; a seed's value is its curve's mean over the last fifth of the common cost."""

    arm: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]  # by seed
    mean: float | None
    interval: Interval | None  # of the mean, Student; None where nothing shows how far seeds scatter
    iqm: float | None  # interquartile mean, for comparison with the literature; decides nothing
    start: float | None  # mean before training, where measured
    improvement: float | None  # mean over seeds of value minus that seed's own value before training
    improvement_interval: Interval | None  # Student


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One arm against the baseline; differences are arm minus baseline."""

    arm: str
    baseline: str
    outcome: Outcome
    reason: str  # why it is undecided, or by what it is equivalent; empty otherwise
    difference: float | None = None  # of means
    interval: Interval | None = None  # simultaneous over all arms compared
    p: float | None = None  # for this arm alone
    p_adjusted: float | None = None  # for being one of several; the rule's
    equivalence_interval: Interval | None = None  # simultaneous, of the two one-sided tests; with a margin only
    negligible: bool = False  # better or worse, and within the margin all the same
    pairs: int = 0  # seeds that both arms finished
    paired_difference: float | None = None  # mean over those seeds
    paired_interval: Interval | None = None  # Student, uncorrected
    effect: float | None = None  # Cohen's d
    improvement_probability: float | None = None  # that a run of the arm beats a run of the baseline
    improvement_interval: Interval | None = None  # stratified bootstrap, uncorrected
    seeds_needed: int | None = None  # per arm, to find a difference of the size seen
    look: int | None = None  # that decided it, or the last one; None: there was but one
    seeds: tuple[int, int] | None = None  # of the arm and of the baseline at that look


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the report says first."""

    headline: str
    metric: str
    mode: str
    confidence: float
    margin: float | None  # differences smaller than this do not matter, in points of the metric
    cost: float  # generated tokens at which arms are compared; steps where no cost was recorded
    window: Interval  # cost over which every curve is averaged
    cost_name: str
    baseline: str
    arms: tuple[ArmSummary, ...]
    comparisons: tuple[Comparison, ...]
    bound: float | None = None  # distance in standard errors from which an arm is named; None: nothing to judge
    final: bool = True  # False: trials are still to come, so nothing is decided
    costless: tuple[str, ...] = ()  # arms that spent nothing while others did, read as they ended
    compare: str = "baseline"  # best: a race, in which the arm in front stands in the baseline's place
    looks: tuple[Look, ...] = ()  # of a design that adds seeds until its arms are decided
    exploratory: str = ""  # why no error rate holds for what is said; empty: it does
    doubts: tuple[str, ...] = ()  # where files no longer agree with what looks were made of
    registered: str = ""  # what the design itself said, where more was looked at
