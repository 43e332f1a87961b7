"""Dhumbal (Jhyap): a card game with hidden hands, its players, tournaments and learners (arXiv:2510.11736)."""

from __future__ import annotations

from typing import Any

from orchestrator.api import Component, Components, Speaks, Trial, TrialResult, hookimpl

from .config import TournamentConfig

PROCEDURE = "dhumbal_tournament"
PAPER = "arXiv:2510.11736"


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="dhumbal_tournament",
            config=TournamentConfig,
            build=_tournament,
            speaks=Speaks.FEATURES,
            paper=PAPER,
            summary="players, deals and seats of a tournament; needs `procedure: dhumbal_tournament`",
        ),
    ]


@hookimpl
def run_trial(trial: Trial, components: Components) -> TrialResult | None:
    if trial.config.get("procedure") != PROCEDURE:
        return None
    from .procedure import run

    return run(trial, components)


def _tournament(config: TournamentConfig) -> Any:
    from .tournament import TournamentEnvironment

    return TournamentEnvironment(config)
