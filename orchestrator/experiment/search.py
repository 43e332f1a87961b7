"""What may be searched and how: our own words for distributions, sampled with numpy, known to no tuner.

==============  ====================  ==========================================================
word            arguments             values
==============  ====================  ==========================================================
``uniform``     ``[low, high]``       real numbers, evenly
``loguniform``  ``[low, high]``       positive real numbers, evenly in their logarithm
``quniform``    ``[low, high, step]``  as ``uniform``, rounded to multiples of ``step`` above ``low``
``int``         ``[low, high]``       whole numbers, both ends included
``logint``      ``[low, high]``       positive whole numbers, evenly in their logarithm
``choice``      a list                one of the listed values; ``grid`` and ``values`` say the same
==============  ====================  ==========================================================
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from orchestrator.errors import Problem, did_you_mean


class Kind(StrEnum):
    """How values of one dimension are distributed."""

    UNIFORM = "uniform"
    LOGUNIFORM = "loguniform"
    QUNIFORM = "quniform"
    INT = "int"
    LOGINT = "logint"
    CHOICE = "choice"


_SYNONYMS = {"grid": Kind.CHOICE, "values": Kind.CHOICE}
_WORDS: dict[str, Kind] = {**{kind.value: kind for kind in Kind}, **_SYNONYMS}
_LOGARITHMIC = (Kind.LOGUNIFORM, Kind.LOGINT)
_WHOLE = (Kind.INT, Kind.LOGINT)
_LARGEST_GRID = 10_000
_LARGEST_NUMBER = 1e18  # whole numbers beyond lose digits as floats, and no option has a use for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One searched option. Numeric kinds have ``low`` and ``high`` (both included), ``choice`` has ``values``."""

    path: str  # dotted, as in optimizer.lr
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None  # of quniform
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

    def extremes(self) -> tuple[Any, ...]:
        """Values that are out of an option's bounds if any value is: the ends, or every choice."""
        if self.kind is Kind.CHOICE:
            return self.values
        return (int(self.low), int(self.high)) if self.kind in _WHOLE else (self.low, self.high)

    def _count(self) -> int:
        """How many points quniform has."""
        assert self.step is not None
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def _point(self, index: int) -> float:
        assert self.step is not None
        return float(f"{self.low + index * self.step:.12g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The searched options, in the order of the file; neutral of any tuner."""

    dimensions: tuple[Dimension, ...]

    def sample(self, count: int, seed: int) -> tuple[dict[str, Any], ...]:
        """Draw ``count`` configurations (dotted path to value), the same for the same seed.

        The first ones do not depend on ``count``: asking for more keeps those already tried.
        """
        return tuple(
            {
                dimension.path: dimension.draw(np.random.default_rng([seed, index, place]))
                for place, dimension in enumerate(self.dimensions)
            }
            for index in range(count)
        )

    def grid(self) -> tuple[dict[str, Any], ...]:
        """Every combination, the last dimension changing fastest; only where all dimensions are finite.

        :raises ValueError: when a dimension is continuous
        """
        endless = [dimension.path for dimension in self.dimensions if dimension.finite_values() is None]
        if endless:
            raise ValueError(f"no grid over continuous dimensions: {', '.join(endless)}")
        columns = [dimension.finite_values() or () for dimension in self.dimensions]
        paths = [dimension.path for dimension in self.dimensions]
        return tuple(dict(zip(paths, values, strict=True)) for values in itertools.product(*columns))


def flatten(search: Mapping[str, Any]) -> dict[str, Any]:
    """Bring nested search sections to dotted paths: ``{optimizer: {lr: {uniform: ...}}}`` to ``{optimizer.lr: ...}``."""
    return dict(_leaves(search, ""))


def repeated(search: Mapping[str, Any]) -> Iterator[Problem]:
    """Say which options a search section names twice: nested and dotted, or a section and an option in it."""
    paths = [path for path, _ in _leaves(search, "")]
    for path in dict.fromkeys(path for path in paths if paths.count(path) > 1):
        yield Problem(f"search.{path}", "named twice; write it once")


def space(search: Mapping[str, Mapping[str, Any]]) -> Space:
    """Read a search section that has been judged.

    :raises ValueError: with every problem, when it has not
    """
    found = problems(search)
    if found:
        raise ValueError("\n".join(map(str, found)))
    return Space(dimensions=tuple(_dimension(path, spec) for path, spec in flatten(search).items()))


def problems(search: Mapping[str, Any], *, searcher: str = "random") -> list[Problem]:
    """Judge a search section by itself: words, arguments, and whether a grid can be made of it."""
    found: list[Problem] = []
    sound: list[Dimension] = []
    for path, spec in flatten(search).items():
        where = f"search.{path}"
        message = _spec_problem(spec)
        if message:
            found.append(Problem(where, message))
            continue
        dimension = _dimension(path, spec)
        sound.append(dimension)
        if searcher == "grid" and dimension.size() == math.inf:
            found.append(
                Problem(where, f"{dimension.kind} has endlessly many values, and tune.searcher is grid; list a choice")
            )
    for outer, inner in itertools.permutations([dimension.path for dimension in sound], 2):
        if inner.startswith(f"{outer}."):
            found.append(Problem(f"search.{inner}", f"lies in {outer}, which is searched too; search one of the two"))
    size = grid_size(sound)
    if searcher == "grid" and _LARGEST_GRID < size < math.inf:
        found.append(
            Problem("search", f"the grid has {size:.12g} points, more than {_LARGEST_GRID}; use random or optuna")
        )
    return found


def grid_size(dimensions: Iterable[Dimension]) -> float:
    """How many combinations there are; at most 1e300 where they are countable."""
    sizes = [dimension.size() for dimension in dimensions]
    if math.inf in sizes:
        return math.inf
    return min(math.prod(int(size) for size in sizes), 10**300)


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
            yield from _leaves(value, path)
        else:
            yield path, value


def _spec_problem(spec: Any) -> str | None:
    if not isinstance(spec, Mapping) or len(spec) != 1:
        return f"expected one word with its arguments, as in {{loguniform: [1.0e-5, 1.0e-3]}}; got {spec!r}"
    ((word, arguments),) = spec.items()
    kind = _WORDS.get(word)
    if kind is None:
        return f"no distribution {word!r}{did_you_mean(str(word), _WORDS)} Words: {', '.join(sorted(_WORDS))}"
    if not isinstance(arguments, list | tuple):
        return f"{word} takes a list; got {arguments!r}"
    if kind is Kind.CHOICE:
        return None if arguments else f"{word} needs at least one value"
    expected = 3 if kind is Kind.QUNIFORM else 2
    names = "[low, high, step]" if kind is Kind.QUNIFORM else "[low, high]"
    if len(arguments) != expected or not all(_is_number(argument) for argument in arguments):
        return f"{word} takes {names}, all finite numbers; got {arguments!r}"
    low, high = arguments[:2]
    if low >= high:
        return f"{word} needs low < high; got {low!r} and {high!r}"
    if not math.isfinite(high - low) or max(abs(low), abs(high)) > _LARGEST_NUMBER:
        return f"{word} needs numbers up to {_LARGEST_NUMBER:g} in size; got {low!r} and {high!r}"
    if kind in _LOGARITHMIC and low <= 0:
        return f"{word} needs low > 0, since it has no logarithm otherwise; got {low!r}"
    if kind in _WHOLE and not all(float(argument).is_integer() for argument in arguments):
        return f"{word} takes whole numbers; got {arguments!r}"
    if kind is Kind.QUNIFORM and not 0 < arguments[2] <= high - low:
        return f"{word} needs a step above 0 and at most high - low; got {arguments[2]!r}"
    return None


def _dimension(path: str, spec: Mapping[str, Any]) -> Dimension:
    ((word, arguments),) = spec.items()
    kind = _WORDS[word]
    if kind is Kind.CHOICE:
        return Dimension(path=path, kind=kind, values=tuple(arguments))
    step = float(arguments[2]) if kind is Kind.QUNIFORM else None
    return Dimension(path=path, kind=kind, low=float(arguments[0]), high=float(arguments[1]), step=step)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
