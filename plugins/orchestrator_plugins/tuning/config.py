"""Options of the schedulers."""

from __future__ import annotations

from pydantic import Field

from orchestrator.api import PluginConfig


class AshaConfig(PluginConfig):
    """Options of asynchronous successive halving."""

    grace: float | None = Field(
        None,
        gt=0,
        description="cost of the lowest rung, in generated tokens (paper: r); null: nine tenths of what the first "
        "trial had spent at its first evaluation after training began",
    )
    factor: float = Field(4.0, gt=1, description="the best 1/factor of a rung go on (paper: eta, sec. 3.2)")


class MedianConfig(PluginConfig):
    """Options of the median stopping rule."""

    grace: float = Field(0.0, ge=0, description="cost before which nothing is stopped, in generated tokens")
    minimum: int = Field(3, ge=1, description="other trials that must have come as far before one is stopped")
