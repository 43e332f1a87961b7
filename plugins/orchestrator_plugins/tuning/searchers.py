"""Searchers that look at no result: the plan lists all they propose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.api import Known, Problem, Search

_LARGEST_GRID = 10_000  # configurations


class Random:
    """Draws every option by itself; the first proposals do not depend on how many are asked for."""

    adaptive = False

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """The draw of the next number, until there are ``samples``."""
        index = len(known.tried)
        return search.space.draw(index, search.seed) if index < search.samples else None


class Grid:
    """Every combination, the last option changing fastest."""

    adaptive = False

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """The combination of the next number."""
        index = len(known.tried)
        return search.space.point(index) if index < search.space.size() else None

    def check_search(self, search: Search) -> Sequence[Problem]:
        """Only finite spaces have a grid, and only small ones one that ends."""
        return list(_grid_problems(search))


def _grid_problems(search: Search) -> Iterator[Problem]:
    for dimension in search.space.dimensions:
        if dimension.size() == math.inf:
            yield Problem(
                f"search.{dimension.path}",
                f"{dimension.kind} has endlessly many values, and tune.searcher is grid; list a choice",
            )
    size = math.prod(dimension.size() for dimension in search.space.dimensions if dimension.size() < math.inf)
    if size > _LARGEST_GRID:
        yield Problem("search", f"the grid has {size:.0f} points, more than {_LARGEST_GRID}; use random or optuna")
