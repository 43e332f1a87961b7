"""Options of the baselines, each with its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.api import PluginConfig, Reduction, UseReward


class GroupConfig(PluginConfig):
    """Every task gets the same number of rollouts."""

    count: int = Field(
        8, ge=1, description="rollouts per task; paper: G, 64 in DeepSeekMath sec. 4.2, 16 in DAPO sec. 4.1"
    )


class DemonstrationsConfig(PluginConfig):
    """Plays each task's demonstration instead of asking the policy."""

    count: int = Field(1, ge=1, description="plays of each task's demonstration")


class CombinedConfig(PluginConfig):
    """Weighted sum of other rewards."""

    rewards: list[UseReward] = Field(
        default=[UseReward(use="exact")], min_length=1, description="rewards to add up, each with its `weight`"
    )


class GroupMeanConfig(PluginConfig):
    """Reward minus the mean of its group."""

    standardise: bool = Field(
        False, description="divide by the group's standard deviation, as DeepSeekMath sec. 4.1.2 does and Dr. GRPO not"
    )


class RewardToGoConfig(PluginConfig):
    """Discounted reward from here on, no baseline."""

    gamma: float = Field(1.0, ge=0, le=1, description="discount per token the policy chose")


class GaeConfig(PluginConfig):
    """Generalised advantages from a critic."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per token the policy chose; PPO, table 3")
    lam: float = Field(0.95, ge=0, le=1, description="trace decay; paper: lambda; PPO, table 3")
    whiten: bool = Field(False, description="shift and scale advantages to mean 0 and deviation 1; targets stay")


class ClippedConfig(PluginConfig):
    """Clipped surrogate with optional dual clip, KL, entropy bonus and critic."""

    clip_low: float = Field(
        0.2, ge=0, description="the ratio's lower bound is 1 minus this; paper: epsilon, PPO sec. 6.1"
    )
    clip_high: float = Field(
        0.2, ge=0, description="the ratio's upper bound is 1 plus this; paper: epsilon, PPO sec. 6.1; 0.28 in DAPO"
    )
    dual_clip: float | None = Field(
        None, gt=1, description="bounds the loss of negative advantages; paper: c, 3 in arXiv:1912.09729; null: no"
    )
    kl_weight: float = Field(
        0.0, ge=0, description="weight of the KL to the reference policy; paper: beta, 0.04 in DeepSeekMath sec. 4.2"
    )
    kl_estimator: Literal["k1", "k2", "k3"] = Field(
        "k3", description="how the KL is estimated; k3 is DeepSeekMath's eq. 4; k1 has no gradient on average on-policy"
    )
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy bonus; paper: c2, PPO eq. 9")
    value_weight: float = Field(
        0.0, ge=0, description="weight of the critic's half squared error; paper: c1, PPO eq. 9; 0: no critic"
    )
    value_clip: float | None = Field(
        None, gt=0, description="how far the critic may move per update, in units of the return; null: freely"
    )
    reduction: Reduction = Field(
        Reduction.TOKEN_MEAN, description="of the policy, KL and entropy terms; the critic's is always token_mean"
    )


class ReinforceConfig(PluginConfig):
    """Log-probability times advantage."""

    kl_weight: float = Field(0.0, ge=0, description="weight of the KL to the reference policy; 0: no reference")
    kl_estimator: Literal["k1", "k2", "k3"] = Field("k3", description="how the KL is estimated")
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    reduction: Reduction = Field(
        Reduction.SEQUENCE_SUM, description="of all terms; the sum makes the loss the gradient of the expected reward"
    )


class CrossEntropyConfig(PluginConfig):
    """Likelihood of the rows' tokens: supervised training, or rejection sampling."""

    rows: Literal["all", "demonstrations"] = Field(
        "all", description="which rows to imitate: all that the sampler returned, or only demonstrations"
    )
    reduction: Reduction = Field(Reduction.TOKEN_MEAN, description="of the loss")
