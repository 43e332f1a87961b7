"""Options of APO, each with its source."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.api import PluginConfig, UseObjective

Momentum = Annotated[float, Field(ge=0, lt=1)]


class ApoConfig(PluginConfig):
    """Another objective, each round of which starts beyond the last one's result."""

    base: UseObjective = Field(
        UseObjective(use="dpo"),
        description="objective of a round, with its options; paper: DPO, in theory also SPPO, IPO",
    )
    momentum: Momentum | Annotated[tuple[Momentum, ...], Field(min_length=1)] = Field(
        0.3,
        description="how far beyond its result the next round starts, in units of the round's move; a list gives one "
        "after each round, its last one goes on. Paper: alpha, 0.3 (grid 0.1 to 0.6); 0: the base itself",
    )
