"""Options of the reward ``function``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from orchestrator.api import NamesCode, PluginConfig


class FunctionConfig(PluginConfig):
    """A Python function of your own that scores texts."""

    path: Annotated[str, NamesCode("file")] | None = Field(
        None, description="FILE.py:FUNCTION; imported by `run` and `resume` alone, with what it imports from beside it"
    )
    live: str | None = Field(None, description="a function that was given from Python, as `rewards=[function]`")
    batch: bool | None = Field(
        None, description="call it with all answers to a task at once; null: where it takes texts, or a list"
    )

    @field_validator("path")
    @classmethod
    def _names_a_function(cls, value: str | None) -> str | None:
        if value is not None:
            file, _, member = value.rpartition(":")
            if not file.endswith(".py") or not member.isidentifier():
                raise ValueError("expected FILE.py:FUNCTION, as in my_reward.py:score")
        return value

    @model_validator(mode="after")
    def _one_function(self) -> FunctionConfig:
        if (self.path is None) == (self.live is None):
            raise ValueError("give path: FILE.py:FUNCTION; from Python, rewards=[function] does without")
        return self
