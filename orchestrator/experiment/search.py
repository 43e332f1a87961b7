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
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.contract.search import Dimension, Kind, Space
from orchestrator.errors import Problem, did_you_mean

_SYNONYMS = {"grid": Kind.CHOICE, "values": Kind.CHOICE}
_WORDS: dict[str, Kind] = {**{kind.value: kind for kind in Kind}, **_SYNONYMS}
_LOGARITHMIC = (Kind.LOGUNIFORM, Kind.LOGINT)
_WHOLE = (Kind.INT, Kind.LOGINT)
_LARGEST_NUMBER = 1e18  # whole numbers beyond lose digits as floats, and no option has a use for them


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


def problems(search: Mapping[str, Any]) -> list[Problem]:
    """Judge a search section by itself: words and arguments; what its searcher makes of it is for that to say."""
    said = {path: _spec_problem(spec) for path, spec in flatten(search).items()}
    found = [Problem(f"search.{path}", message) for path, message in said.items() if message]
    for outer, inner in itertools.permutations([path for path, message in said.items() if not message], 2):
        if inner.startswith(f"{outer}."):
            found.append(Problem(f"search.{inner}", f"lies in {outer}, which is searched too; search one of the two"))
    return found


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
