"""Options of the Gymnasium environment."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from orchestrator.api import PluginConfig


class GymnasiumConfig(PluginConfig):
    """Options of the environment ``gymnasium``."""

    id: str = Field("CartPole-v1", min_length=1, description="registered name, as gymnasium.make takes it")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed on to gymnasium.make")
    max_steps: int | None = Field(
        None, ge=1, description="steps after which a play is cut off; null: as registered. See also sampling.max_turns"
    )
    seed: int = Field(0, ge=0, description="of the sequence of tasks")
