"""Dhumbal (Jhyap): a card game with hidden hands, its players, tournaments and learners (arXiv:2510.11736)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.api import (
    Component,
    Components,
    Recipe,
    ReportSection,
    Speaks,
    Trial,
    TrialResult,
    hookimpl,
)

from .config import DhumbalConfig, QLearningConfig, ReplayConfig, TournamentConfig

if TYPE_CHECKING:
    from orchestrator.api import Study

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
            summary="a card game with hidden hands: one learner against rule, random or search players",
        ),
        Component(
            name="dhumbal_tournament",
            config=TournamentConfig,
            build=".tournament:TournamentEnvironment",
            speaks=Speaks.FEATURES,
            paper=PAPER,
            summary="players, deals and seats of a tournament; needs `procedure: dhumbal_tournament`",
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
            summary="plays each task once and trains on remembered rollouts",
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
            summary="logits as action values, the reference policy as target network",
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    return [
        Recipe(
            name="dqn",
            summary="deep Q-learning: replay, a target network refreshed every round",
            paper="doi:10.1038/nature14236",
            overlay={
                "sampler": {"use": "replay"},
                "advantage": {"use": "reward_to_go"},  # read by nobody: the objective makes its own targets
                "objective": {"use": "q_learning"},
                "schedule": {"epochs": 1, "minibatches": 8, "steps_per_round": 10, "refresh_reference": "round"},
                "optimizer": {"lr": 1e-4},
            },
        ),
        Recipe(
            name="dhumbal_ppo",
            summary="PPO with the numbers of the Dhumbal study",
            paper=PAPER,
            overlay={
                "sampler": {"use": "group", "count": 1},
                "advantage": {"use": "gae", "gamma": 0.99, "lam": 0.95, "whiten": True},
                "objective": {
                    "use": "clipped",
                    "clip_low": 0.2,
                    "clip_high": 0.2,
                    "value_weight": 0.5,
                    "entropy_weight": 0.01,
                    "reduction": "token_mean",
                },
                "schedule": {"epochs": 5, "minibatches": 1, "tasks_per_step": 1},
                "optimizer": {"lr": 1e-4},
            },
        ),
    ]


@hookimpl
def provide_report_sections() -> list[ReportSection]:
    return [ReportSection(name="dhumbal", title="Dhumbal tournaments", render=_render)]


@hookimpl
def run_trial(trial: Trial, components: Components) -> TrialResult | None:
    if trial.settings.procedure != PROCEDURE:
        return None
    from .procedure import run

    return run(trial, components)


def _render(study: Study) -> str | None:
    from .report import render

    return render(study)
