"""Options of the environments."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PluginConfig


class WorldConfig(PluginConfig):
    """Options every generated world has."""

    train_on: Literal["training", "demonstrations"] = Field(
        "training", description="which tasks the TRAIN split draws from; the two ranges share none"
    )
    evaluate_on: Literal["validation", "test"] = Field(
        "validation", description="which tasks the EVAL split draws from; the two ranges share none"
    )
    train_tasks: int | None = Field(None, ge=1, description="training tasks, after which they repeat; null: endless")
    eval_tasks: int = Field(512, ge=1, description="evaluation tasks")
    seed: int = Field(0, description="of the generated tasks and demonstrations and of nothing else")


class ChainSearchConfig(WorldConfig):
    """Options of the environment ``chain_search``."""

    letters: int = Field(12, ge=3, le=26, description="entities are pairs of the first so many letters")
    chain: int = Field(5, ge=2, le=8, description="entities of a chain, e0 included")
    hops: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="hops a task may ask for, equally likely")
    max_turns: int = Field(5, ge=2, description="turns of an episode; who has not answered by then has lost")
    expert_error: float = Field(
        0.25, ge=0, le=1, description="chance that a turn of a demonstration names a wrong entity"
    )
    cut_action: Literal["goes_on", "ends"] = Field(
        "goes_on", description="what an action cut by the token limit is: a malformed turn, or the end of the episode"
    )

    @field_validator("hops")
    @classmethod
    def _hops_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value) or min(value) < 1:
            raise ValueError("expected numbers of at least 1, each once")
        return value

    @model_validator(mode="after")
    def _hops_fit(self) -> ChainSearchConfig:
        most = max(self.hops)
        if most >= self.chain:
            raise ValueError(f"hops {most} needs a chain of {most + 1} entities; chain is {self.chain}")
        if most >= self.max_turns:
            raise ValueError(f"hops {most} takes {most + 1} turns, the answer included; max_turns is {self.max_turns}")
        return self
