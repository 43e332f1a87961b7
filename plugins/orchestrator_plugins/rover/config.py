"""Options of ROVER, each with its source."""

from pydantic import Field

from orchestrator.api import PluginConfig


class RoverConfig(PluginConfig):
    """Regresses log-ratios on the advantage plus a bootstrap that keeps the next step random."""

    q_temperature: float = Field(
        1.0,
        gt=0,
        description="what a nat of log-ratio is worth in reward; paper: rho, 1 (sec. 3.2; ablated 0.001 to 4)",
    )
    bootstrap_weight: float = Field(
        1.0, ge=0, description="weight of the next state's value in the target; paper: beta, 1 (ablated 0 to 5)"
    )
    across_turns: bool = Field(
        False,
        description="after a turn's last token bootstrap from the next turn's first; false, as released: from nothing",
    )
