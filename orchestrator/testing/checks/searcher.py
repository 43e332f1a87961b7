"""The contract of a searcher: what it proposes follows from what is known, and from nothing it remembers."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.contract.roles import ChecksSearch
from orchestrator.contract.search import Dimension, Ended, Goal, Kind, Known, Measured, Proposed, Search, Space, Tried
from orchestrator.errors import Problem
from orchestrator.maths.seeding import derive_seed

_CHOICE = Dimension(path="sampler.use", kind=Kind.CHOICE, values=("group", "dars", "best_of"))
_NUMBERS = (
    Dimension(path="optimizer.lr", kind=Kind.LOGUNIFORM, low=1e-5, high=1e-2),
    Dimension(path="schedule.epochs", kind=Kind.INT, low=1, high=4),
    Dimension(path="objective.clip_low", kind=Kind.QUNIFORM, low=0.1, high=0.5, step=0.1),
    Dimension(path="sampler.count", kind=Kind.LOGINT, low=2, high=32),
)
_REAL = tuple(Dimension(path=path, kind=Kind.UNIFORM, low=-1.0, high=2.0) for path in ("optimizer.lr", "optimizer.eps"))
_SPACES = (  # the widest it can do with is played
    Space(dimensions=(_CHOICE, *_NUMBERS)),
    Space(dimensions=_NUMBERS),
    Space(dimensions=_REAL),
    Space(dimensions=(_CHOICE, _NUMBERS[1])),
)
_SAMPLES = 8


def check_searcher(build: Callable[[], Any], *, seed: int = 0, goals: int = 1, **_: Any) -> list[str]:
    """Broken rules of a searcher.

    It is asked through a made-up search, two configurations side by side, one of which fails; and at every proposal a new
    one, given what was known then, must propose the same.

    :param seed: of the search and of what happens in it
    :param goals: metrics compared
    """
    searcher = build()
    if not isinstance(searcher.adaptive, bool):
        return [f"adaptive is {searcher.adaptive!r}; expected True or False"]
    problems: list[str] = []
    compared = tuple(Goal(f"eval/made_up_{place}", "max") for place in range(goals))
    for space in _SPACES:
        about = Search(space=space, goals=compared, samples=_SAMPLES, seed=seed, arm="made up")
        said = searcher.check_search(about) if isinstance(searcher, ChecksSearch) else ()
        if not all(isinstance(one, Problem) for one in said):
            return [f"check_search gave {list(said)!r}; expected Problems"]
        if not said:
            for known, kept, proposed in _played(searcher, about):
                problems += _broken(build, searcher, about, known, kept, proposed)
            break
    return list(dict.fromkeys(problems))


def _broken(
    build: Callable[[], Any], searcher: Any, about: Search, known: Known, kept: Known, proposed: Any
) -> Iterator[str]:
    where = f"proposal {len(known.tried)}"
    misfit = None if proposed is None else about.space.misfit(proposed)
    if misfit:
        yield f"{where}: {misfit}"
    if searcher.propose(about, known) != proposed:
        yield f"{where} is another when asked again: a proposal follows from what is known alone"
    if build().propose(about, known) != proposed:
        yield (
            f"{where} is another from a new object that is told the same: after a killed driver the search would go on "
            "differently. Draw from search.seed, and rebuild what is remembered from known.events"
        )
    if known != kept:
        yield f"{where} changed what it was told; copy what you keep"


def _played(searcher: Any, about: Search) -> Iterator[tuple[Known, Known, Any]]:
    """Each moment of a search at which something is proposed: what is known, a copy of it, and the proposal."""
    luck = random.Random(about.seed)
    tried: list[Tried] = []
    events: list[Proposed | Measured | Ended] = []
    steps: dict[int, int] = {}  # by configuration
    for index in range(about.samples):
        known = Known(tried=tuple(tried), events=tuple(events))
        kept = copy.deepcopy(known)
        values = searcher.propose(about, known)
        yield known, kept, values
        if values is None or about.space.misfit(values):
            return
        events.append(Proposed(index, dict(values)))
        tried.append(Tried(index=index, values=dict(values), status="running", scores=None))
        running = [one for one in tried if one.status == "running"]
        if not searcher.adaptive or len(running) < 2:
            continue
        for one in running:
            steps[one.index] = step = steps.get(one.index, 0) + 1
            scores, cost = _scores(one.values, about, step), 100.0 * step + one.index
            events.append(Measured(one.index, 1000, step, cost, scores))
            tried[one.index] = replace(one, scores=scores, cost=cost)
        ending = tried[luck.choice(running).index]
        status = "failed" if len(tried) == 4 else luck.choice(("done", "done", "stopped"))
        events.append(Ended(ending.index, status, ending.scores, ending.cost))
        tried[ending.index] = replace(ending, status=status)


def _scores(values: Mapping[str, Any], about: Search, step: int) -> tuple[float, ...]:
    """Numbers in [0, 1) that follow from the values."""
    told = sorted((path, repr(value)) for path, value in values.items())
    return tuple(derive_seed(told, step, place) / 2**63 for place in range(len(about.goals)))
