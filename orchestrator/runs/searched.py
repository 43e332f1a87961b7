"""What a search knows, and which configuration it chose: all from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

from orchestrator.contract.plan import Phase, Plan
from orchestrator.contract.search import Ended, Goal, Known, Measured, Proposed, Tried
from orchestrator.experiment.tuning import goals
from orchestrator.runs.journal import Added, End, Evaluated, History, Suggestion, TrialHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What the search of one arm tried, and what it chose.

    :ivar arm: its name
    :ivar goals: what was compared
    :ivar tried: every configuration proposed so far, by index
    :ivar chosen: the one confirmed; None: the search has not ended, or nothing could be chosen
    :ivar front: of several metrics, the configurations that no other beats in all; of one, none
    """

    arm: str
    goals: tuple[Goal, ...]
    tried: tuple[Tried, ...]
    chosen: Tried | None
    front: tuple[Tried, ...] = ()

    def values(self, one: Tried) -> tuple[float, ...] | None:
        """What a configuration reached, in the metrics themselves."""
        return _scores(one.scores, self.goals)


class Outcome(NamedTuple):
    """How one tuning trial of a configuration does."""

    status: str
    scores: tuple[float, ...] | None
    cost: float


def searched(plan: Plan, history: History) -> tuple[Searched, ...]:
    """What the search of every arm tried and chose; empty where nothing is searched."""
    if not plan.experiment.search:
        return ()
    compared = goals(plan.experiment.tune, plan.experiment.report)
    confirmed = {
        entry.spec.arm: entry.spec.searched
        for entry in history.trials.values()
        if entry.spec.phase is Phase.CONFIRM and entry.spec.searched
    }
    arms = dict.fromkeys([*plan.arms, *(entry.spec.arm for entry in history.trials.values())])
    return tuple(_searched(arm, compared, tried(history, arm, compared), confirmed.get(arm)) for arm in arms)


def known(history: History, arm: str, goals: Sequence[Goal]) -> Known:
    """All that is known of one arm's search."""
    return Known(tried=tried(history, arm, goals), events=tuple(_events(history, arm, goals)))


def tried(history: History, arm: str, goals: Sequence[Goal]) -> tuple[Tried, ...]:
    """Every configuration of an arm as it stands, by index."""
    by_index: dict[int, list[TrialHistory]] = {}
    for entry in history.trials.values():
        if entry.spec.phase is Phase.TUNE and entry.spec.arm == arm:
            by_index.setdefault(entry.spec.sample or 0, []).append(entry)
    return tuple(
        summarise(index, entries[0].spec.searched, [_outcome(entry, goals) for entry in entries])
        for index, entries in sorted(by_index.items())
    )


def summarise(index: int, values: Any, trials: Sequence[Outcome]) -> Tried:
    """Make one entry of a configuration's tuning trials.

    It failed if one of them did, runs while one does, and was stopped if one was.
    """
    statuses = [trial.status for trial in trials]
    for status in ("failed", "running", "pending", "stopped"):
        if status in statuses:
            break
    else:
        status = "done"
    measured = [trial.scores for trial in trials if trial.scores is not None]
    complete = len(measured) == len(trials)
    return Tried(
        index=index,
        values=values,
        status="running" if status == "pending" else status,
        scores=tuple(mean(scores) for scores in zip(*measured, strict=True)) if complete and measured else None,
        cost=max((trial.cost for trial in trials), default=0.0),
    )


def best(tried: Sequence[Tried]) -> Tried | None:
    """The configuration to confirm: of those that ran to their end the one with the highest score, the earlier of equals.

    Those stopped early are considered only when none ran to its end; those that failed never are. Where several metrics
    are compared it is the one of the Pareto front with the highest first score.
    """
    candidates = _candidates(tried)
    return max(front(candidates), key=lambda one: (one.scores or (), -one.index), default=None)


def front(tried: Sequence[Tried]) -> list[Tried]:
    """The configurations that no other is at least as good as in every score and better in one, of those to choose from."""
    candidates = _candidates(tried)
    return [one for one in candidates if not any(_beats(other, one) for other in candidates)]


def _candidates(tried: Sequence[Tried]) -> list[Tried]:
    for status in ("done", "stopped"):
        found = [one for one in tried if one.status == status and _is_sound(one)]
        if found:
            return found
    return []


def _is_sound(one: Tried) -> bool:
    return one.scores is not None and not any(math.isnan(score) for score in one.scores)


def _searched(
    arm: str, compared: tuple[Goal, ...], tried: tuple[Tried, ...], confirmed: Mapping[str, Any] | None
) -> Searched:
    same = [one for one in tried if dict(one.values) == dict(confirmed or {})]
    chosen = max(same, key=lambda one: (one.score is not None, one.score or 0.0, -one.index), default=None)
    return Searched(
        arm=arm, goals=compared, tried=tried, chosen=chosen, front=tuple(front(tried)) if len(compared) > 1 else ()
    )


def _beats(one: Tried, other: Tried) -> bool:
    pairs = list(zip(one.scores or (), other.scores or (), strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _outcome(entry: TrialHistory, goals: Sequence[Goal]) -> Outcome:
    return Outcome(entry.status, _scores(entry.values, goals), entry.cost)


def _scores(values: tuple[float, ...] | None, goals: Sequence[Goal]) -> tuple[float, ...] | None:
    return None if values is None else tuple(goal.sign * value for goal, value in zip(goals, values, strict=True))


def _events(history: History, arm: str, goals: Sequence[Goal]) -> Iterator[Proposed | Measured | Ended]:
    """What happened in an arm's search, in order: a configuration has ended when the last of its trials has."""
    proposed: set[int] = set()
    waiting: dict[int, dict[str, Outcome | None]] = {}  # by index and trial; None: not ended
    last: dict[str, tuple[tuple[float, ...] | None, float]] = {}  # scores and cost by trial
    for entry in history.log:
        match entry:
            case Suggestion() if entry.arm == arm:
                proposed.add(entry.index)
                yield Proposed(entry.index, entry.values)
            case Added(spec) if spec.arm == arm and spec.phase is Phase.TUNE:
                index = spec.sample or 0
                waiting.setdefault(index, {})[spec.id] = None
                if index not in proposed:
                    proposed.add(index)
                    yield Proposed(index, spec.searched)
            case Evaluated():
                spec = history.trials[entry.trial].spec
                scores = _scores(entry.measured, goals)
                if spec.arm == arm and spec.phase is Phase.TUNE:
                    last[entry.trial] = scores, entry.cost
                    if scores is not None:
                        yield Measured(spec.sample or 0, spec.seed, entry.step, entry.cost, scores)
            case End():
                spec = history.trials[entry.trial].spec
                if spec.arm == arm and spec.phase is Phase.TUNE:
                    index = spec.sample or 0
                    outcomes = waiting[index]
                    outcomes[entry.trial] = Outcome(entry.status, *last.get(entry.trial, (None, 0.0)))
                    over = [outcome for outcome in outcomes.values() if outcome is not None]
                    if len(over) == len(outcomes):
                        whole = summarise(index, {}, over)
                        yield Ended(index, whole.status, whole.scores, whole.cost)
