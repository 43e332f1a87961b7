"""Ray Tune's searchers, named by import path: hyperopt, bayesian-optimization, ax and whatever else derives from its class."""

from __future__ import annotations

from orchestrator.api import Component, hookimpl

from .config import RayConfig


@hookimpl
def provide_searchers() -> list[Component]:
    return [
        Component(
            name="ray",
            config=RayConfig,
            build=".searcher:RaySearcher",
            summary="a ray.tune.search.Searcher, named by import path",
            paper="arXiv:1807.05118",
        )
    ]
