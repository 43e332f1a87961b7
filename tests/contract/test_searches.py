"""Every installed searcher and scheduler, and a stranger's, does at any moment what one would that was told it all anew."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.api import Component, Decision, Judged, load_registry
from orchestrator.testing import check_component
from orchestrator.testing.checks.scheduler import check_scheduler
from orchestrator.testing.checks.searcher import check_searcher

REGISTRY = load_registry()


class Second:
    """A stranger's searcher: the second best so far, moved to the middle of what was drawn."""

    adaptive = True

    def propose(self, search, known):
        drawn = search.space.draw(len(known.tried), search.seed)
        scored = sorted((one for one in known.tried if one.score is not None), key=lambda one: one.score)
        return {**drawn, **dict(list(scored[-2].values.items())[:1])} if len(scored) > 1 else drawn


class Third:
    """A stranger's scheduler: stops whoever reports a score below a third of the best before."""

    def judge(self, report, before):
        best = max((one.report.score for one in before if isinstance(one, Judged)), default=report.score)
        return Decision(stop=report.score < best / 3)


def _installed(role):
    for name in REGISTRY.names(role):
        try:
            REGISTRY.describe(role, name).config()
        except ValidationError:
            continue  # its own tests give it the options it needs
        yield pytest.param(lambda role=role, name=name: REGISTRY.build(role, name), id=name)


@pytest.mark.parametrize("build", [*_installed("searcher"), pytest.param(Second, id="a stranger's")])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31), goals=st.sampled_from([1, 2]))
def test_proposals_follow_from_what_is_known(build, seed, goals):
    assert check_searcher(build, seed=seed, goals=goals) == []


@pytest.mark.parametrize("build", [*_installed("scheduler"), pytest.param(Third, id="a stranger's")])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31))
def test_decisions_follow_from_what_happened_before(build, seed):
    assert check_scheduler(build, seed=seed) == []


class Counting:
    """Remembers how often it was asked, which a killed driver forgets."""

    adaptive = True

    def __init__(self, _=None):
        self.asked = itertools.count()

    def propose(self, search, known):
        return search.space.draw(next(self.asked), search.seed)


class Outside:
    adaptive = True

    def propose(self, search, known):
        return {**search.space.draw(0, 0), "optimizer.lr": 7.0}


class Greedy:
    """Changes what it is told."""

    adaptive = True

    def propose(self, search, known):
        if known.tried:
            known.tried[-1].values["optimizer.lr"] = 1e-3
        return search.space.draw(len(known.tried), search.seed)


class Remembering:
    def __init__(self, _=None):
        self.best = float("-inf")

    def judge(self, report, before):
        stop, self.best = report.score < self.best, max(self.best, report.score)
        return Decision(stop=stop)


class Shouting:
    def judge(self, report, before):
        return "stop"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (Counting, "is another from a new object that is told the same"),
        (Outside, "7.0 for optimizer.lr, which is loguniform"),
        (Greedy, "changed what it was told"),
        (Remembering, "is another from a new object that is told the same"),
        (Shouting, "is 'stop'; expected Decision"),
    ],
)
def test_the_check_finds_who_would_go_on_differently_and_who_breaks_the_contract(made, expected):
    with pytest.raises(AssertionError, match=r"breaks its contract") as caught:
        check_component(Component(name="bad", build=lambda _: made()))

    assert expected in str(caught.value)
