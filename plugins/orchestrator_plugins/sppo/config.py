"""Options of SPPO, each with its source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.api import PluginConfig


class SppoConfig(PluginConfig):
    """Regresses each answer's log-ratio on its win rate against the policy that sampled it."""

    step_size: float = Field(
        1000.0,
        gt=0,
        description="nats of log-ratio per unit of win rate; paper: eta, 1e3 (1 / beta in the code); small models want "
        "1 to 10",
    )
    log_partition: Literal["sample"] | Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="log Z in units of step_size; paper: 1/2, tunable up to 1; or sample: estimated from the siblings",
    )
    selection: Literal["best_worst", "all"] = Field(
        "best_worst", description="which siblings are trained on: the best and the worst by score (paper), or all"
    )
    comparison: Literal["win_rate", "single", "hard"] = Field(
        "win_rate",
        description="what an answer's target comes from: its win rate over all siblings (paper), its one comparison "
        "with the other answer of the pair, or 1 for the better and 0 for the worse",
    )

    @model_validator(mode="after")
    def _pairs_where_pairs_are_compared(self) -> SppoConfig:
        if self.selection == "all" and self.comparison != "win_rate":
            raise ValueError(
                f"comparison: {self.comparison} is about two answers, but selection: all trains on every one; use "
                f"selection: best_worst, or comparison: win_rate"
            )
        return self
