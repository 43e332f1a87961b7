"""Options of the perceptron."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.api import PluginConfig


class MlpConfig(PluginConfig):
    """Perceptron over features, one action a turn, illegal actions masked."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((64, 64), description="width of each hidden layer")
    activation: Literal["tanh", "relu", "leaky_relu", "silu"] = Field("tanh", description="after each hidden layer")
    init: Literal["orthogonal", "torch"] = Field(
        "orthogonal",
        description="orthogonal weights (gain sqrt 2, action layer 0.01, value layer 1) with zero biases, or torch's own",
    )
    critic: Literal["none", "head", "separate"] = Field(
        "separate",
        description="when a method wants values: refuse, read them from the last hidden layer, or from a network apart",
    )
    seed: int | None = Field(None, ge=0, description="of the initial weights; null: the trial's")
