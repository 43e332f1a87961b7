"""Looks ahead: which difference a plan can find before a token is spent, at what cost, and what would find a smaller one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.contract.metrics import SUCCESS
from orchestrator.contract.plan import Plan
from orchestrator.contract.seeds import SeedsUntil
from orchestrator.contract.settings import ReportSettings, Settings
from orchestrator.experiment.estimate import Estimate
from orchestrator.maths.expected import expected_trials
from orchestrator.maths.power import Noise, chance_of_equivalence, left_by_averaging, smallest_difference
from orchestrator.maths.sequential import Course, bounds
from orchestrator.maths.statistics import pooled_variance
from orchestrator.maths.verdict import WINDOW, window_weights
from orchestrator.runs.study import Study
from orchestrator.verdict.expense import spent_in
from orchestrator.verdict.outcome import Verdict
from orchestrator.verdict.study import judge_study
from orchestrator.verdict.tasks import noise, read_evaluations

SPREAD = 0.3  # arms scatter unequally: standard deviation of the logarithm, where power is foreseen
TRAINING = 0.025  # standard deviation over seeds of pass@1 that training makes, where no run says
ANSWER = 0.15  # variance of an answer within its task, where no run says: pass rates from 0 to 1, unequal over tasks
FEW = 6  # degrees of freedom below which an earlier run's scatter is a hint
DIFFERENCE = 0.10  # for which the trials of a design that adds seeds are foreseen
MANY = 4  # arms compared from which a larger baseline is proposed

_MOST_PLACES = 2000  # evaluations that a schedule is laid out with


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """A change of the plan, what it can find and what it costs."""

    change: str
    smallest: float  # difference that is found with a chance of 80 %
    tokens: float | None  # of all trials, in those of the plan as it is; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the trials that enter the verdict are expected to cost, all together; None where nothing is known."""

    training_tokens: float | None
    evaluation_tokens: float | None
    at_most: bool  # tokens are limits: every action as long as it may be, one an episode

    @property
    def tokens(self) -> float | None:
        """Training and evaluation tokens."""
        if self.training_tokens is None or self.evaluation_tokens is None:
            return None
        return self.training_tokens + self.evaluation_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """What a plan can find, with what it rests on."""

    metric: str
    confidence: float
    counts: tuple[int, ...]  # seeds, the baseline first
    baseline: str
    noise: Noise | None  # None: nothing tells how the metric scatters
    source: str  # where the noise comes from
    smallest: float | None  # difference that is found with a chance of 80 %
    alternatives: tuple[Alternative, ...]  # the plan as it is comes first
    cost: Cost
    expected: tuple[tuple[str, float], ...]  # trials of a design that adds seeds, by what is true of its arms
    margin: float | None  # of equivalence, where declared
    equivalence: float | None  # chance that an equal arm is called equivalent within it


def foresee(plan: Plan, estimates: Mapping[str, Estimate], like: Study | None = None) -> Foresight | None:
    """Say what a plan can find; None where there is nothing to compare.

    :param estimates: sizes of a trial by arm
    :param like: an earlier run whose seeds scatter as the plan's are expected to; None: stated defaults
    :raises ConfigError: the earlier run cannot be judged as its own plan says
    """
    report = plan.experiment.report
    names = list(plan.arms)
    if len(names) < 2:
        return None
    baseline = report.baseline or names[0]
    counts = [len(plan.experiment.seeds_of(arm)) for arm in (baseline, *(arm for arm in names if arm != baseline))]
    settings = plan.arms[baseline]
    verdict = judge_study(like, report.metric)[0] if like is not None else None
    metric = report.metric or (verdict.metric if verdict else SUCCESS)
    found, source = _noise(settings, metric, like, verdict, estimates[baseline].evaluation_tasks)
    cost = _cost(plan, estimates, like)
    smallest, equivalence = None, None
    alternatives: tuple[Alternative, ...] = ()
    expected: tuple[tuple[str, float], ...] = ()
    design = plan.experiment.sequential
    if found is not None and design is not None:
        course = Course(
            counts=tuple((n,) * len(counts) for n in design.course),
            shares=tuple(n / design.at_most for n in design.course),
        )
        expected = tuple(_expected(design, found, len(counts), report))
        if report.compare == "baseline":
            bar = float(bounds(course, report.confidence)[-1])
            smallest = smallest_difference(
                found.total**0.5, counts, confidence=report.confidence, spread=SPREAD, bar=bar
            )
    elif found is not None and min(counts) > 1 and report.compare == "baseline":
        if report.margin is not None:
            equivalence = chance_of_equivalence(
                report.margin, found.total**0.5, counts, confidence=report.confidence, spread=SPREAD
            )
        smallest = smallest_difference(found.total**0.5, counts, confidence=report.confidence, spread=SPREAD)
        alternatives = tuple(_alternatives(found, counts, cost, settings, report.confidence))
    return Foresight(
        metric=metric,
        confidence=report.confidence,
        counts=tuple(counts),
        baseline=baseline,
        noise=found,
        source=source,
        smallest=smallest,
        alternatives=alternatives,
        cost=cost,
        expected=expected,
        margin=report.margin,
        equivalence=equivalence,
    )


def _expected(design: SeedsUntil, noise: Noise, arms: int, report: ReportSettings) -> Iterator[tuple[str, float]]:
    """Trials of a design that adds seeds, where its arms are equal and where they differ."""
    worlds = {
        "all arms are equal": (0.0,) * arms,
        f"one is {DIFFERENCE:.2f} better": (0.0, DIFFERENCE, *(0.0,) * (arms - 2)),
    }
    for words, effects in worlds.items():
        yield (
            words,
            expected_trials(
                design.course,
                effects,
                noise.total**0.5,
                margin=report.margin,
                confidence=report.confidence,
                spread=SPREAD,
                best=report.compare == "best",
            ),
        )


def _noise(
    settings: Settings, metric: str, like: Study | None, verdict: Verdict | None, tasks: int
) -> tuple[Noise | None, str]:
    """How seeds will scatter when evaluated as planned, and who says so."""
    evaluation = settings.evaluation
    planned = Noise(
        training=TRAINING**2,
        answer=ANSWER,
        tasks=tasks,
        samples=evaluation.samples,
        averaging=_averaging(settings),
    )
    if like is not None:
        name = like.name
        if verdict is None:
            return None, f"{name} has no finished trial to learn from"
        several = [arm.values for arm in verdict.arms if len(arm.values) > 1]
        if not several:
            return None, f"{name} has no arm of two seeds"
        total, freedom = pooled_variance(several)
        seen = noise(read_evaluations(like, verdict), verdict)
        rough = ", too few to be more than a hint" if freedom < FEW else ""
        says = f"as in {name}, {freedom + len(several)} trials of {len(several)} arm{'s' * (len(several) > 1)}{rough}"
        if seen is None:
            return replace(planned, training=total, answer=0.0), f"{says}; evaluation's part is not known"
        return replace(planned, training=seen.training, answer=seen.answer), says
    if metric != SUCCESS:
        return None, f"how {metric} scatters is unknown; --like RUN takes it from an earlier run"
    return (
        planned,
        f"assumed: training {TRAINING:g}, an answer's variance {ANSWER:g}; --like RUN takes them from an earlier run",
    )


def _averaging(settings: Settings) -> float:
    """What averaging over the last fifth leaves of an evaluation's variance, for the schedule as planned."""
    steps, every = settings.schedule.steps, settings.evaluation.every
    if steps == 0:
        return 1.0
    every = max(every, steps // _MOST_PLACES) if every else 0  # more of them leave nothing worth showing
    places = sorted({0, steps, *(range(every, steps + 1, every) if every else ())})
    return left_by_averaging(window_weights(places, (1 - WINDOW) * steps, steps).tolist())


def _alternatives(
    noise: Noise, counts: Sequence[int], cost: Cost, settings: Settings, confidence: float
) -> list[Alternative]:
    """The plan as it is, a larger baseline, a seed more, and the tokens of that seed spent on evaluation instead."""

    def found(change: str, noise: Noise, counts: Sequence[int], tokens: float | None) -> Alternative:
        smallest = smallest_difference(noise.total**0.5, counts, confidence=confidence, spread=SPREAD)
        return Alternative(change=change, smallest=smallest, tokens=tokens)

    trials, arms, evaluation = sum(counts), len(counts) - 1, settings.evaluation
    rows = [found("as planned", noise, counts, 1.0)]
    more = [count + 1 for count in counts]
    extra = len(counts) / trials  # tokens of a seed more for each arm, in those of the plan
    rows.append(found("a seed more for every arm", noise, more, 1 + extra))
    if arms >= MANY or counts[0] != counts[1]:
        doubled = [2 * counts[0], *counts[1:]]
        rows.append(found(f"{doubled[0]} seeds for the baseline", noise, doubled, 1 + counts[0] / trials))
    if cost.tokens and cost.evaluation_tokens and noise.answer > 0:
        factor = 1 + extra * cost.tokens / cost.evaluation_tokens
        same = noise.with_evaluation(tasks=factor)
        rows.append(found(f"for the same tokens: {same.tasks} tasks", same, counts, 1 + extra))
        same = noise.with_evaluation(samples=factor)
        rows.append(found(f"for the same tokens: {same.samples} samples a task", same, counts, 1 + extra))
        every = max(1, round((evaluation.every or settings.schedule.steps) / factor))
        often = settings.model_copy(update={"evaluation": evaluation.model_copy(update={"every": every})})
        averaged = replace(noise, averaging=_averaging(often))
        rows.append(found(f"for the same tokens: an evaluation every {every} steps", averaged, counts, 1 + extra))
    return rows


def _cost(plan: Plan, estimates: Mapping[str, Estimate], like: Study | None) -> Cost:
    """Tokens of all confirmations: what trials of the earlier run took, else the limits of the plan."""
    measured = spent_in(like)
    training: float | None = 0.0
    evaluation = 0.0
    at_most = "cost/generated_tokens" not in measured
    for arm, size in estimates.items():
        seeds = len(plan.experiment.seeds_of(arm))
        per_answer = measured.get("answer", float(size.tokens_per_action))
        evaluation += seeds * size.evaluation_rollouts * per_answer
        own = size.budget
        if not at_most:
            own = round(measured["cost/generated_tokens"] * size.steps / measured["steps"]) if own is None else own
        elif own is None and size.rollouts is not None:
            own = size.rollouts * size.tokens_per_action
        training = None if training is None or own is None else training + seeds * own
    return Cost(training_tokens=training, evaluation_tokens=evaluation, at_most=at_most)
