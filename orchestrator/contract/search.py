"""What searchers and schedulers are told: the space, the goals, what was proposed, measured and decided, in order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np


class Kind(StrEnum):
    """How values of one dimension are distributed.

    :cvar UNIFORM: real numbers, evenly
    :cvar LOGUNIFORM: positive real numbers, evenly in their logarithm
    :cvar QUNIFORM: ``low``, ``low + step``, ... up to ``high``
    :cvar INT: whole numbers, both ends included
    :cvar LOGINT: positive whole numbers, evenly in their logarithm
    :cvar CHOICE: one of the listed values
    """

    UNIFORM = "uniform"
    LOGUNIFORM = "loguniform"
    QUNIFORM = "quniform"
    INT = "int"
    LOGINT = "logint"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One searched option.

    :ivar path: dotted, as in ``optimizer.lr``
    :ivar kind: how its values are distributed
    :ivar low: smallest value of numeric kinds, included
    :ivar high: largest value of numeric kinds, included
    :ivar step: of ``quniform``
    :ivar values: of ``choice``; of any type JSON has
    """

    path: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    values: tuple[Any, ...] = ()

    def draw(self, generator: np.random.Generator) -> Any:
        """Draw one value; always consumes one uniform number, so dimensions stay independent of each other."""
        return self.quantile(float(generator.random()))

    def quantile(self, share: float) -> Any:
        """The value below which ``share`` of the distribution lies, ``share`` in [0, 1)."""
        low, high = self.low, self.high
        match self.kind:
            case Kind.CHOICE:
                return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
            case Kind.UNIFORM:
                return low + share * (high - low)
            case Kind.LOGUNIFORM:
                return _between(math.exp(math.log(low) + share * (math.log(high) - math.log(low))), low, high)
            case Kind.QUNIFORM:
                count = self._count()
                return self._point(min(int(share * count), count - 1))
            case Kind.INT:
                return min(int(low) + int(share * (int(high) - int(low) + 1)), int(high))
            case Kind.LOGINT:
                edge_low, edge_high = math.log(low - 0.5), math.log(high + 0.5)
                return int(_between(round(math.exp(edge_low + share * (edge_high - edge_low))), low, high))

    def size(self) -> float:
        """How many values there are; infinite for continuous kinds."""
        match self.kind:
            case Kind.UNIFORM | Kind.LOGUNIFORM:
                return math.inf
            case Kind.INT | Kind.LOGINT:
                return int(self.high) - int(self.low) + 1
            case Kind.QUNIFORM:
                return self._count()
        return len(self.values)

    def finite_values(self) -> tuple[Any, ...] | None:
        """Every value, in order; None where they are not countable."""
        match self.kind:
            case Kind.CHOICE:
                return self.values
            case Kind.QUNIFORM:
                return tuple(map(self._point, range(self._count())))
            case Kind.INT | Kind.LOGINT:
                return tuple(range(int(self.low), int(self.high) + 1))
        return None

    def at(self, place: int) -> Any:
        """The value at a place among the finite ones, from 0.

        :raises ValueError: values are not countable
        """
        match self.kind:
            case Kind.CHOICE:
                return self.values[place]
            case Kind.QUNIFORM:
                return self._point(place)
            case Kind.INT | Kind.LOGINT:
                return int(self.low) + place
        raise ValueError(f"{self.path} is {self.kind}, whose values have no places")

    def extremes(self) -> tuple[Any, ...]:
        """Values that are out of an option's bounds if any value is: the ends, or every choice."""
        if self.kind is Kind.CHOICE:
            return self.values
        return (int(self.low), int(self.high)) if self.kind in (Kind.INT, Kind.LOGINT) else (self.low, self.high)

    def described(self) -> str:
        """Its word and arguments, as an experiment file has them."""
        if self.kind is Kind.CHOICE:
            return f"{self.kind} {list(self.values)}"
        ends = [int(end) if self.kind in (Kind.INT, Kind.LOGINT) else end for end in (self.low, self.high)]
        return f"{self.kind} {ends if self.step is None else [*ends, self.step]}"

    def holds(self, value: Any) -> bool:
        """Whether a value is one of its own: of its type, within its bounds."""
        match self.kind:
            case Kind.INT | Kind.LOGINT:
                return type(value) is int and self.low <= value <= self.high
            case Kind.UNIFORM | Kind.LOGUNIFORM:
                return type(value) is float and self.low <= value <= self.high
            case Kind.CHOICE:
                return any(type(value) is type(one) and value == one for one in self.values)
        if type(value) is not float or not self.low <= value <= self.high or not self.step:
            return False
        return value == self._point(min(round((value - self.low) / self.step), self._count() - 1))

    def _count(self) -> int:
        """How many points quniform has."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _point(self, index: int) -> float:
        assert self.step is not None
        return float(f"{self.low + index * self.step:.12g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The searched options; neutral of any tuner.

    :ivar dimensions: in the order of the file
    """

    dimensions: tuple[Dimension, ...]

    def misfit(self, values: Any) -> str | None:
        """What is wrong with values that a searcher proposed; None where they are of this space."""
        if not isinstance(values, Mapping):
            return f"proposed {values!r}; expected a mapping of dotted path to value"
        paths = {dimension.path for dimension in self.dimensions}
        if set(values) != paths:
            return f"proposed values for {_listed(values)}; expected one for each of {_listed(paths)}"
        wrong = [d for d in self.dimensions if not d.holds(values[d.path])]
        said = (f"{values[d.path]!r} for {d.path}, which is {d.described()}" for d in wrong)
        return f"proposed {'; '.join(said)}" if wrong else None

    def draw(self, index: int, seed: int) -> dict[str, Any]:
        """Draw one configuration (dotted path to value), the same for the same number and seed."""
        return {
            dimension.path: dimension.draw(np.random.default_rng([seed, index, place]))
            for place, dimension in enumerate(self.dimensions)
        }

    def size(self) -> float:
        """How many configurations there are, at most 1e300; infinite where a dimension is continuous."""
        sizes = [dimension.size() for dimension in self.dimensions]
        return math.inf if math.inf in sizes else min(math.prod(int(size) for size in sizes), 10**300)

    def point(self, index: int) -> dict[str, Any]:
        """The combination of that number, the last dimension changing fastest; only where all dimensions are finite.

        :raises ValueError: a dimension is continuous
        :raises IndexError: there are not as many
        """
        endless = [dimension.path for dimension in self.dimensions if dimension.size() == math.inf]
        if endless:
            raise ValueError(f"no grid over continuous dimensions: {', '.join(endless)}")
        if not 0 <= index < self.size():
            raise IndexError(f"no combination {index} among {self.size():.12g}")
        values = {}
        for dimension in reversed(self.dimensions):
            index, place = divmod(index, int(dimension.size()))
            values[dimension.path] = dimension.at(place)
        return {dimension.path: values[dimension.path] for dimension in self.dimensions}


class Goal(NamedTuple):
    """One number that a search compares.

    :ivar metric: its name; None: ``eval/pass_at_1`` where measured, else ``eval/reward/mean``
    :ivar mode: ``max`` or ``min``; scores that searchers and schedulers see are turned so that more is always better
    """

    metric: str | None
    mode: str

    @property
    def sign(self) -> float:
        """Factor that makes more of the metric better, and turns a score back into the metric."""
        return 1.0 if self.mode == "max" else -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What one arm's search is about; the same from its first proposal to its last, in a resumed run too.

    :ivar space: what may be proposed
    :ivar goals: what is compared; one, or several for a search that ends in a Pareto front
    :ivar samples: configurations the arm gets in all
    :ivar seed: ``tune.seed``; derive all randomness from it, the arm's name and the number of the proposal
    :ivar arm: whose search it is; arms know nothing of each other
    """

    space: Space
    goals: tuple[Goal, ...] = (Goal(None, "max"),)
    samples: int = 8
    seed: int = 0
    arm: str = "arm"


@dataclass(frozen=True, slots=True)
class Proposed:
    """A configuration was proposed.

    :ivar index: its number among the arm's, from 0
    :ivar values: dotted path to value
    """

    index: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One evaluation of a configuration that is being played.

    :ivar index: of the configuration
    :ivar seed: tuning seed of the trial that reported
    :ivar step: of training
    :ivar cost: spent by that trial so far, generated tokens
    :ivar scores: one per goal; more is better; nan is possible
    """

    index: int
    seed: int
    step: int
    cost: float
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """Every trial of a configuration has ended. A resumed run plays failed ones again, so it may be said again.

    :ivar index: of the configuration
    :ivar status: ``done``, ``stopped`` by the scheduler, or ``failed``
    :ivar scores: mean over tuning seeds of the last ones measured, one per goal; None where a trial measured none
    :ivar cost: at which they were measured
    """

    index: int
    status: str
    scores: tuple[float, ...] | None
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One configuration of an arm and how it does over its tuning seeds.

    :ivar index: its number among the arm's, from 0
    :ivar values: dotted path to value
    :ivar status: ``running``, ``done``, ``stopped`` by the scheduler, or ``failed``
    :ivar scores: mean over tuning seeds of the last ones measured, one per goal, more is better; None until every seed
        measured some
    :ivar cost: at which they were measured, generated tokens
    """

    index: int
    values: Mapping[str, Any]
    status: str
    scores: tuple[float, ...] | None
    cost: float = 0.0

    @property
    def score(self) -> float | None:
        """The first goal's score; None where there is none, or it is not a number."""
        return None if self.scores is None or math.isnan(self.scores[0]) else self.scores[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that is known of one arm's search, rebuilt from the journal in a resumed run; never change it.

    :ivar tried: every configuration proposed so far, by index, as it stands now
    :ivar events: what happened, in the order it did: for searchers with state of their own
    """

    tried: Sequence[Tried] = ()
    events: Sequence[Proposed | Measured | Ended] = ()


class TrialReport(NamedTuple):
    """One evaluation of a trial, for a scheduler to judge.

    :ivar trial: its id
    :ivar step: of training
    :ivar cost: spent so far, generated tokens; grows with each report of a trial
    :ivar score: what is compared; more is better; nan counts as the worst
    """

    trial: str
    step: int
    cost: float
    score: float


class Decision(NamedTuple):
    """What a scheduler decided on a report.

    :ivar stop: whether the trial ends here
    :ivar rung: cost of the rung the trial entered by it; None: it entered none
    """

    stop: bool
    rung: float | None = None


class Judged(NamedTuple):
    """A report with what was decided on it.

    :ivar report: what was judged
    :ivar decision: what stands, whatever would be decided today
    """

    report: TrialReport
    decision: Decision


class TrialEnd(NamedTuple):
    """A trial ended. A resumed run plays failed ones again, so that more of its reports may follow.

    :ivar trial: its id
    :ivar status: ``done``, ``stopped`` or ``failed``
    """

    trial: str
    status: str


def _listed(paths: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, paths))) or "nothing"


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
