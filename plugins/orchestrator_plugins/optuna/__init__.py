"""Optuna: any of its samplers as a searcher, any of its pruners as a scheduler."""

from __future__ import annotations

from orchestrator.api import Component, hookimpl

from .config import PrunerConfig, SamplerConfig


@hookimpl
def provide_searchers() -> list[Component]:
    return [
        Component(
            name="optuna",
            config=SamplerConfig,
            build=".searcher:OptunaSearcher",
            summary="a sampler of optuna.samplers by name; its keyword options stand beside it",
            paper="arXiv:1907.10902",
        )
    ]


@hookimpl
def provide_schedulers() -> list[Component]:
    return [
        Component(
            name="optuna_pruner",
            config=PrunerConfig,
            build=".scheduler:OptunaPruner",
            summary="a pruner of optuna.pruners by name, its steps generated tokens; its keyword options stand beside it",
            paper="arXiv:1907.10902",
        )
    ]
