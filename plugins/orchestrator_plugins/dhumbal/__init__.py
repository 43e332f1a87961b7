"""Dhumbal (Jhyap): a card game with hidden hands, its players, tournaments and learners (arXiv:2510.11736)."""

from __future__ import annotations

from orchestrator.api import Component, Components, Recipe, ReportSection, Speaks, Trial, TrialResult, hookimpl

from .config import DhumbalConfig, QLearningConfig, ReplayConfig, TournamentConfig

PROCEDURE = "dhumbal_tournament"
PAPER = "arXiv:2510.11736"


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="dhumbal",
            config=DhumbalConfig,
            build=".environment:DhumbalEnvironment",
            speaks=Speaks.FEATURES,
            paper=PAPER,
        ),
        Component(
            name="dhumbal_tournament",
            config=TournamentConfig,
            build=".tournament:TournamentEnvironment",
            speaks=Speaks.FEATURES,
            paper=PAPER,
        ),
    ]


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="replay",
            config=ReplayConfig,
            build=".replay:Replay",
            speaks=Speaks.FEATURES,
            paper="doi:10.1038/nature14236",
        )
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="q_learning",
            config=QLearningConfig,
            build=".q_learning:QLearning",
            speaks=Speaks.FEATURES,
            paper="doi:10.1038/nature14236",
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="dhumbal", title="Dhumbal tournaments", render=".report:render")]


@hookimpl
def run_trial(trial: Trial, components: Components) -> TrialResult | None:
    if trial.settings.procedure != PROCEDURE:
        return None
    from .procedure import run

    return run(trial, components)
