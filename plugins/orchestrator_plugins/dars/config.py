"""Options of DARS, each with its source."""

from pydantic import Field

from orchestrator.api import PluginConfig

from .rebalance import Schedule


class DarsConfig(PluginConfig):
    """A few rollouts for every task, then more for the hard ones."""

    schedule: Schedule = Field(
        Schedule.EQUAL_TREATMENT, description="what weight hard tasks are lifted to; paper: ET and HW schedules"
    )
    pre_rollouts: int = Field(8, ge=2, description="rollouts every task gets; paper: N, 8 (16 for Llama)")
    max_rollouts: int = Field(
        32, ge=2, description="most rollouts of one task, first ones included; paper: N_max, 32; scripts: 64 with HW"
    )
    standardise: bool = Field(
        False, description="reckon with advantages divided by the group's deviation; off in every released script"
    )
    success_at: float | None = Field(
        None, description="score from which a rollout is right; null: the episode's `correct` metric, or scores 0 and 1"
    )
    drop_constant: bool = Field(
        True, description="leave out tasks whose scores are all equal after the second stage; on in the released code"
    )


class DarsWeightsConfig(PluginConfig):
    """Control: weighs hard tasks as DARS would, without sampling more of them."""

    schedule: Schedule = Field(Schedule.EQUAL_TREATMENT, description="as the sampler's")
    max_rollouts: int = Field(32, ge=2, description="as the sampler's; caps the weight at max_rollouts / siblings")
    standardise: bool = Field(False, description="divide by the group's deviation, and reckon with it")
    success_at: float = Field(1.0, description="score from which a row is right")
