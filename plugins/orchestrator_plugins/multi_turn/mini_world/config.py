"""Options of the mini world."""

from __future__ import annotations

from random import Random
from typing import Literal

from pydantic import Field, model_validator

from ..worlds_config import WorldConfig
from .generation import generate


class MiniWorldConfig(WorldConfig):
    """Text adventures of rooms, locks and keys with a quest of a chosen length and known solution."""

    rooms: int = Field(2, ge=1, le=12, description="rooms on the grid; paper: w")
    objects: int = Field(3, ge=1, le=12, description="things that can be carried, keys included; paper: o")
    quest_length: int = Field(
        4, ge=1, le=16, description="sub-goals, each one command of the shortest solution; paper: q"
    )
    max_turns: int | None = Field(
        None, ge=1, description="commands of an episode, after which it is lost; null: twice the quest (paper: sec. 3)"
    )
    score_every: int = Field(
        1, ge=0, description="a point for every n-th sub-goal and for the last; 0: for the last only (paper: sec. 4)"
    )
    expert_error: float = Field(
        0.0, ge=0, lt=1, description="chance that a turn of a demonstration is a random command instead of the expert's"
    )
    commands: Literal["plain", "permuted"] = Field(
        "plain", description="permuted: commands are said with the verb of another, the same exchange in every world"
    )
    cut_action: Literal["goes_on", "ends"] = Field(
        "ends", description="what an action cut by the token limit is: no command, or the end of the episode"
    )

    @property
    def turns(self) -> int:
        """The limit on turns."""
        return 2 * self.quest_length if self.max_turns is None else self.max_turns

    @model_validator(mode="after")
    def _quest_fits(self) -> MiniWorldConfig:
        if self.turns < self.quest_length:
            raise ValueError(f"max_turns {self.turns} is too few for a quest of {self.quest_length} steps")
        generate(Random("fits"), rooms=self.rooms, objects=self.objects, quest_length=self.quest_length)
        return self
