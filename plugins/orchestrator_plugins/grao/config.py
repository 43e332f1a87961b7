"""Options of GRAO, each with its source."""

from enum import StrEnum

from pydantic import Field

from orchestrator.api import PluginConfig, UseReward, UseSampler


class Statistics(StrEnum):
    """Whose rewards the mean and the deviation of a group are taken over."""

    JOINT = "joint"  # rollouts and demonstration
    ROLLOUTS = "rollouts"  # rollouts only; the paper's formula read literally


class WithDemonstrationConfig(PluginConfig):
    """Another sampler's groups, each with its task's demonstration as one more row."""

    base: UseSampler = Field(
        UseSampler(use="group", count=8), description="sampler of the rollouts; paper: G, 8 (table of hyper-parameters)"
    )


class VersusDemonstrationConfig(PluginConfig):
    """1 better, 0 equal, -1 worse than the group's demonstration by another reward."""

    base: UseReward = Field(
        UseReward(use="exact"), description="reward by which rollout and demonstration are compared"
    )
    margin: float = Field(0.0, ge=0, description="differences up to this are a tie")


class GraoAdvantageConfig(PluginConfig):
    """Standardises rollouts and demonstration in one group."""

    statistics: Statistics = Field(
        Statistics.JOINT, description="members of mean and deviation; the paper leaves it open (sec. 3)"
    )
    clip_demonstration: bool = Field(
        False, description="extension: the demonstration's advantage is at least 0, so it is never pushed away"
    )


class GraoConfig(PluginConfig):
    """Explores by the rollouts, imitates the demonstration while it is better."""

    exploration_weight: float = Field(1.0, ge=0, description="weight of the rollouts' term; 0 for the ablation")
    imitation_weight: float = Field(0.5, ge=0, description="weight of the demonstration's term; paper: beta, 0.5")
    alignment_weight: float = Field(0.6, ge=0, description="weight of the regulariser; paper: lambda, 0.6")
