"""Options of P3O, each with its source."""

from typing import Literal

from pydantic import Field

from orchestrator.api import PluginConfig, UseReward


class P3OConfig(PluginConfig):
    """Policy gradient of sibling pairs: only differences of rewards count, whole responses are clipped."""

    clipping: Literal["separate", "joint"] = Field(
        "separate",
        description="what is clipped: each response's ratio (paper: V1), or the pair's log-ratio (paper: V2)",
    )
    clip: float = Field(0.2, gt=0, description="half-width of the clip, with joint in nats; paper: epsilon, code: 0.2")
    max_weight: float = Field(
        10.0, gt=1, description="bounds importance weights, and their inverses; code: cliprange_ratio, 10"
    )
    kl_weight: float = Field(0.05, ge=0, description="of the log-ratio to the reference; paper: beta, 0.05 on HH")
    kl_at: Literal["current", "old"] = Field(
        "current", description="whose log-ratio enters the reward: each optimiser step's (as released), or who sampled"
    )
    pairing: Literal["all", "disjoint"] = Field(
        "all", description="pairs of more than two siblings: every pair, or (0, 1), (2, 3), ...; paper: two responses"
    )


class ShiftedConfig(PluginConfig):
    """Another reward plus a constant of each task's own: what preference-trained rewards leave open."""

    reward: UseReward = Field(UseReward(use="exact"), description="the reward that is shifted")
    deviation: float = Field(
        1.0, ge=0, description="standard deviation of the tasks' constants, which are normal and fixed by the task's id"
    )
