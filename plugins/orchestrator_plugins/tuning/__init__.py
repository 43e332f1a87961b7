"""Tuning: the searchers and schedulers that need no other package."""

from __future__ import annotations

from orchestrator.api import Component, hookimpl

from .config import AshaConfig, MedianConfig


@hookimpl
def provide_searchers() -> list[Component]:
    return [
        Component(name="random", build=".searchers:Random", summary="draws from the space, the same for every arm"),
        Component(name="grid", build=".searchers:Grid", summary="every combination of a finite space"),
    ]


@hookimpl
def provide_schedulers() -> list[Component]:
    return [
        Component(
            name="asha",
            config=AshaConfig,
            build=".schedulers:Asha",
            summary="asynchronous successive halving, its rungs measured in generated tokens",
            paper="arXiv:1810.05934",
        ),
        Component(
            name="median",
            config=MedianConfig,
            build=".schedulers:Median",
            summary="stops what is below the median of the others at the same cost",
            paper="doi:10.1145/3097983.3098043",
        ),
    ]
