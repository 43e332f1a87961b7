"""Options of the estimators, the reward, the mixture and the curriculum, each with its source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from orchestrator.api import PluginConfig, UseAdvantage, UseEnvironment, UseSampler

LevelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class TurnGaeConfig(PluginConfig):
    """Generalised advantages with a turn as one step."""

    value_at: Literal["first", "last"] = Field(
        "first", description="token whose value stands for its turn: the first (before the turn) or the last"
    )
    gamma: float = Field(1.0, ge=0, le=1, description="discount per turn; paper: gamma, 1.0")
    lam: float = Field(1.0, ge=0, le=1, description="trace decay per turn; not stated in the paper, 1.0 in its code")
    whiten: bool = Field(True, description="shift and scale advantages to mean 0 and deviation 1; targets stay")


class BilevelGaeConfig(PluginConfig):
    """Generalised advantages over turns, then over the tokens of each."""

    gamma_turn: float = Field(1.0, ge=0, le=1, description="discount per turn")
    gamma_token: float = Field(1.0, ge=0, le=1, description="discount per token of a turn")
    lam_turn: float = Field(1.0, ge=0, le=1, description="trace decay per turn")
    lam_token: float = Field(1.0, ge=0, le=1, description="trace decay per token of a turn")
    whiten: bool = Field(True, description="shift and scale advantages to mean 0 and deviation 1; targets stay")


class ReinforcePlusPlusConfig(PluginConfig):
    """Reward to go across turns, whitened over the batch."""

    gamma: float = Field(1.0, ge=0, le=1, description="discount per token the policy chose")
    whiten: bool = Field(True, description="shift and scale over the batch's tokens; the method's only baseline")


class KlPenalisedConfig(PluginConfig):
    """Another estimator, on rewards that every token's KL to the reference is taken from."""

    inner: UseAdvantage = Field(UseAdvantage(use="gae"), description="estimator that sees the charged rewards")
    weight: float = Field(
        0.01, ge=0, description="what a nat of KL to the reference costs; paper: beta, 0.01 (PPO), 0.001 (RLOO)"
    )


class ProgressConfig(PluginConfig):
    """Share of a game's points by turn, or 1 at the end of a win."""

    placement: Literal["per_turn", "terminal"] = Field(
        "per_turn",
        description="per_turn: score increments where they were earned; terminal: 1 on the last turn of a win, else 0",
    )
    win_bonus: float = Field(
        0.0, ge=0, le=1, description="per_turn: share of a win's 1 that winning alone earns, on its last turn"
    )

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> ProgressConfig:
        if self.placement == "terminal" and self.win_bonus:
            raise ValueError(
                f"win_bonus {self.win_bonus} has no effect with placement: terminal, where a win earns all of its 1 by "
                f"winning; leave it out, or set placement: per_turn"
            )
        return self


class LevelConfig(UseEnvironment):
    """One level of a mixture: an environment with the level's name and its part of the tasks."""

    level: LevelName = Field(description="the level's name; first part of its tasks' ids and of its metrics")
    weight: float = Field(
        1.0, ge=0, description="share of the training tasks, before dividing by the sum; 0: only tested"
    )
    evaluated: bool = Field(True, description="whether evaluation asks for it")


class MixtureConfig(PluginConfig):
    """Several environments as levels of one, trained by weight and tested each by itself."""

    worlds: list[LevelConfig] = Field(
        min_length=1, description="the levels, easiest first, each {use: ..., level: ...}"
    )

    @model_validator(mode="after")
    def _sound(self) -> MixtureConfig:
        names = [world.level for world in self.worlds]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"worlds: level {', '.join(twice)} more than once; give each world a name of its own")
        if not any(world.weight > 0 for world in self.worlds):
            raise ValueError("worlds: every weight is 0, so there is nothing to train on; raise one")
        if not any(world.evaluated for world in self.worlds):
            raise ValueError("worlds: none is evaluated, so nothing could be measured; set evaluated on one")
        return self


class StageConfig(PluginConfig):
    """One stage of a curriculum: a mixture of levels, and when it has been passed."""

    levels: dict[LevelName, float] = Field(min_length=1, description="weight of each level among the stage's tasks")
    success: float = Field(
        0.8, gt=0, le=1, description="share of won episodes that ends the stage; the last never ends"
    )
    window: int = Field(
        128, ge=1, description="latest episodes of the stage the share is taken over, all of them needed"
    )
    judged: LevelName | None = Field(None, description="level whose episodes decide; null: all of the stage's")
    steps: int | None = Field(
        None, ge=1, description="steps after which the stage ends whatever the success; null: never"
    )

    @model_validator(mode="after")
    def _sound(self) -> StageConfig:
        wrong = {name: weight for name, weight in self.levels.items() if not 0 <= weight < float("inf")}
        if wrong or not any(self.levels.values()):
            raise ValueError(f"levels: weights {dict(self.levels)}; expected numbers of at least 0, one above 0")
        if self.judged is not None and not self.levels.get(self.judged):
            raise ValueError(
                f"judged: {self.judged!r} is not played in this stage; its levels: {', '.join(self.levels)}"
            )
        return self


class CurriculumConfig(PluginConfig):
    """Stages of task mixtures, the next once the present one is mastered."""

    stages: list[StageConfig] = Field(min_length=1, description="in order; a single one is a fixed mixture")
    base: UseSampler = Field(UseSampler(use="group"), description="how the chosen tasks are sampled")
