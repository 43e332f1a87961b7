"""Any searcher of Ray Tune: asked and told in the journal's order, so that a resumed run has the same one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from orchestrator.api import (
    ConfigError,
    Dimension,
    Ended,
    Kind,
    Known,
    Measured,
    Problem,
    Proposed,
    Search,
    derive_seed,
)

from .config import RayConfig
from .source import SourceError, find, lacking

logger = logging.getLogger(__name__)

_OURS = ("space", "metric", "mode")
_SEEDS = ("seed", "random_state_seed", "random_state", "random_seed")  # what searchers call their seed
_ONLY = {"BayesOptSearch": (Kind.UNIFORM,)}  # Ray drops what it cannot handle there
_SCORE = "score"


class RaySearcher:
    """Asks a searcher of Ray Tune.

    It is imported when first asked, which only a run does. Its own randomness is seeded where it takes a seed; numpy's and
    Python's global generators are seeded for the time of each call, and put back.
    """

    adaptive = True

    def __init__(self, config: RayConfig):
        self.config = config
        self._told: _Told | None = None
        problems = _problems(config)
        if problems:
            raise ConfigError(problems)

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """Ask for the next configuration, after telling what is new."""
        if self._told is None or not self._told.begins(search, known):
            self._told = _Told(search, self.config)
        return self._told.ask(known)

    def check_search(self, search: Search) -> Sequence[Problem]:
        """One metric, and a space the searcher is known to handle."""
        name = self.config.searcher.partition(":")[2]
        found = []
        if len(search.goals) > 1:
            message = (
                f"searchers of Ray Tune compare one metric, and it lists {len(search.goals)}; use optuna, or one metric"
            )
            found.append(Problem("tune.metric", message))
        only = _ONLY.get(name, tuple(Kind))
        for dimension in search.space.dimensions:
            if dimension.kind not in only:
                message = (
                    f"{name} handles {' and '.join(only)} alone, and this is {dimension.kind}; use another searcher"
                )
                found.append(Problem(f"search.{dimension.path}", message))
        return found


class _Told:
    """A searcher that has been asked and told what happened so far, in order."""

    def __init__(self, search: Search, config: RayConfig):
        self.search = search
        self._events: list[Proposed | Measured | Ended] = []
        self._over: set[int] = set()
        self._asked: dict[str, Any] | None = None  # proposed, and not known to be played yet
        with _seeded(search, "made"):
            self._searcher = _make(config, search)

    def begins(self, search: Search, known: Known) -> bool:
        """Whether this is the beginning of what is known."""
        return search == self.search and self._events == list(known.events[: len(self._events)])

    def ask(self, known: Known) -> dict[str, Any] | None:
        """The next configuration; None where it has none now."""
        for event in known.events[len(self._events) :]:
            with _seeded(self.search, "told", len(self._events)):
                self._tell(event)
            self._events.append(event)
        return self._pending(len(known.tried))

    def _pending(self, index: int) -> dict[str, Any] | None:
        if self._asked is None:
            with _seeded(self.search, "asked", index):
                suggested = self._searcher.suggest(_id(index))
            if suggested is None or suggested == self._searcher.FINISHED:
                return None
            dimensions = self.search.space.dimensions
            self._asked = {d.path: _decode(d, suggested[_name(place)]) for place, d in enumerate(dimensions)}
        return self._asked

    def _tell(self, event: Proposed | Measured | Ended) -> None:
        match event:
            case Proposed(index, values):
                asked, self._asked = self._pending(index), None
                if asked != dict(values):
                    logger.warning(
                        "arm %s, sample %d: the journal holds %s, and the searcher proposes %s today; the journal stands, "
                        "and the searcher may learn from the wrong values",
                        self.search.arm,
                        index,
                        dict(values),
                        asked,
                    )
            case Measured(index, _, step, cost, scores) if index not in self._over and math.isfinite(scores[0]):
                self._searcher.on_trial_result(_id(index), _result(scores[0], cost, step))
            case Ended(index, status, scores, cost) if index not in self._over:
                self._over.add(index)
                if status == "failed" or scores is None or not math.isfinite(scores[0]):
                    self._searcher.on_trial_complete(_id(index), error=True)
                else:
                    self._searcher.on_trial_complete(_id(index), result=_result(scores[0], cost, None))


def _problems(config: RayConfig) -> list[Problem]:
    """What is wrong with the class and its options, from its source alone."""
    module, _, name = config.searcher.partition(":")
    if importlib.util.find_spec("ray") is None:
        return [Problem("searcher", "ray is not installed; pip install 'ray[tune]'")]
    try:
        found = find(module, name)
    except (SourceError, SyntaxError) as error:
        known = difflib.get_close_matches(name, getattr(error, "known", ()), n=1)
        hint = f"; did you mean {known[0]!r}?" if known else ""
        return [Problem("searcher.searcher", f"{error}{hint}")]
    missing = lacking(found, also_guarded=found.module.startswith("ray.tune.search."))
    problems = [
        Problem(
            "searcher.searcher",
            f"{name} needs {package}, which is not installed; see its documentation for the version",
        )
        for package in missing
    ]
    options = found.options
    for option in config.options:
        if option in _OURS:
            problems.append(
                Problem(f"searcher.options.{option}", "is given to it: see search, tune.metric and tune.mode")
            )
        elif options is not None and option not in options:
            near = difflib.get_close_matches(option, options, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            expected = ", ".join(sorted(set(options) - set(_OURS))) or "none"
            problems.append(
                Problem(f"searcher.options.{option}", f"{name} has no such option{hint} It takes: {expected}")
            )
    problems += [
        Problem("searcher.options", f"{name} needs {option}")
        for option in found.needed
        if option not in config.options and option not in (*_OURS, *_SEEDS)
    ]
    return problems


def _make(config: RayConfig, search: Search) -> Any:
    """Import the class, which is the experiment file's choice, make one, and tell it the space.

    :raises ConfigError: it is no searcher of Ray Tune, or refuses its options or the space
    """
    from ray.tune.search import Searcher

    module, _, name = config.searcher.partition(":")
    logger.info("importing %s, named by tune.searcher, from %s", config.searcher, find(module, name).file)
    found = getattr(importlib.import_module(module), name)
    if not (inspect.isclass(found) and issubclass(found, Searcher)):
        raise ConfigError(
            [Problem("tune.searcher.searcher", f"{config.searcher} is no subclass of ray.tune.search.Searcher")]
        )
    options = dict(config.options)
    taken = inspect.signature(found).parameters
    seed = next((one for one in _SEEDS if one in taken and one not in options), None)
    if seed is not None and not any(one in options for one in _SEEDS):
        options[seed] = derive_seed(search.seed, search.arm) % 2**31
    space = {_name(place): _domain(dimension) for place, dimension in enumerate(search.space.dimensions)}
    try:
        made = found(**options)
        taken_up = made.set_search_properties(_SCORE, "max", space)
    except Exception as error:
        raise ConfigError([Problem("tune.searcher", f"{name} refuses its options or the space: {error}")]) from error
    if not taken_up:
        raise ConfigError([Problem("tune.searcher", f"{name} does not take a space of Ray Tune's")])
    return made


def _domain(dimension: Dimension) -> Any:
    from ray import tune

    match dimension.kind:
        case Kind.UNIFORM:
            return tune.uniform(dimension.low, dimension.high)
        case Kind.LOGUNIFORM:
            return tune.loguniform(dimension.low, dimension.high)
        case Kind.INT:
            return tune.randint(int(dimension.low), int(dimension.high) + 1)
        case Kind.LOGINT:
            return tune.lograndint(int(dimension.low), int(dimension.high) + 1)
        case Kind.QUNIFORM:
            return tune.randint(0, int(dimension.size()))
    return tune.choice(list(range(len(dimension.values))))  # by place: values may be lists


def _decode(dimension: Dimension, value: Any) -> Any:
    match dimension.kind:
        case Kind.CHOICE | Kind.QUNIFORM:
            return (dimension.finite_values() or ())[int(value)]
        case Kind.INT | Kind.LOGINT:
            return int(min(max(int(value), dimension.low), dimension.high))
    return float(min(max(float(value), dimension.low), dimension.high))


def _result(score: float, cost: float, step: int | None) -> dict[str, Any]:
    """What Tune would tell: time is the cost, in generated tokens."""
    return {_SCORE: score, "time_total_s": cost, **({} if step is None else {"training_iteration": step})}


def _id(index: int) -> str:
    return f"{index:05d}"


def _name(place: int) -> str:
    return f"x{place}"


@contextmanager
def _seeded(search: Search, *moment: Any) -> Iterator[None]:
    """Global generators seeded for one call."""
    state, numpy_state = random.getstate(), np.random.get_state()
    seed = derive_seed(search.seed, search.arm, *moment)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
