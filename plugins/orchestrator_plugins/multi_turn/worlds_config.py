"""Options of the environments."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from orchestrator.api import PluginConfig


class ChainSearchConfig(PluginConfig):
    """Options of the environment ``chain_search``."""

    letters: int = Field(12, ge=3, le=26, description="entities are pairs of the first so many letters")
    chain: int = Field(5, ge=2, le=8, description="entities of a chain, e0 included")
    hops: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="hops a task may ask for, equally likely")
    max_turns: int = Field(5, ge=2, description="turns of an episode; who has not answered by then has lost")
    expert_error: float = Field(
        0.25, ge=0, le=1, description="chance that a turn of a demonstration names a wrong entity"
    )
    seed: int = Field(0, description="of the generated chains and demonstrations and of nothing else")
    train_tasks: int | None = Field(None, ge=1, description="training chains; null: an endless stream")
    eval_tasks: int = Field(512, ge=1, description="evaluation chains")

    @field_validator("hops")
    @classmethod
    def _hops_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value) or min(value) < 1:
            raise ValueError("expected numbers of at least 1, each once")
        return value

    @model_validator(mode="after")
    def _hops_fit(self) -> ChainSearchConfig:
        if max(self.hops) >= self.chain:
            raise ValueError(
                f"hops {max(self.hops)} needs a chain of {max(self.hops) + 1} entities; chain is {self.chain}"
            )
        if max(self.hops) >= self.max_turns:
            raise ValueError(
                f"hops {max(self.hops)} takes {max(self.hops) + 1} turns, answer included; max_turns is {self.max_turns}"
            )
        return self
