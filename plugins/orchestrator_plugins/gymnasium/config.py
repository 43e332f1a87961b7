"""Options of the Gymnasium environments."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from orchestrator.api import NamesCode, PluginConfig


class GymnasiumConfig(PluginConfig):
    """Any registered Gymnasium environment with a discrete action space; a task is a seed."""

    id: Annotated[str, NamesCode("registered")] = Field(
        "CartPole-v1", min_length=1, description="registered name, as gymnasium.make takes it"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed on to gymnasium.make")
    max_steps: int | None = Field(
        None, ge=1, description="steps after which a play is cut off; null: as registered. See also sampling.max_turns"
    )
    seed: int = Field(0, ge=0, description="of the sequence of tasks")


class Cut(StrEnum):
    """What an action does that the token limit cut off."""

    ENDS = "ends"  # the play is over
    GOES_ON = "goes_on"  # a turn is lost


class Evaluation(StrEnum):
    """Which seeds the split EVAL is made of."""

    VALIDATION = "validation"
    TEST = "test"


class GymnasiumTextConfig(PluginConfig):
    """Any registered Gymnasium environment of texts, one message a turn; a task is a seed."""

    id: Annotated[str, NamesCode("registered")] = Field(
        min_length=1, description="registered name, as gymnasium.make takes it"
    )
    module: Annotated[str, NamesCode("module")] | None = Field(
        None, description="module to import first, which registers the name"
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed on to gymnasium.make")
    observation_key: str | int | None = Field(
        None, description="which part of a dictionary or tuple of observations is the text; null: they are texts"
    )
    prompt: str = Field("{observation}", description="first message; {observation} stands for what reset gave")
    reply: str = Field("{observation}", description="later messages; {observation} stands for what step gave")
    success_key: str | None = Field(
        None, description="key of step's info that says whether the play has succeeded; null: success_at decides"
    )
    success_at: float = Field(1.0, description="sum of rewards from which a play has succeeded, without success_key")
    max_score: float = Field(1.0, gt=0, description="most a play's rewards can sum to, for rewards that normalise")
    max_turns: int | None = Field(None, ge=1, description="turns after which a play is cut off; null: as registered")
    cut_action: Cut = Field(
        Cut.ENDS, description="an action that the token limit cut off ends the play, or loses a turn"
    )
    check_actions: bool = Field(
        True, description="texts outside the action space lose a turn; false: the simulator gets whatever was said"
    )
    train_tasks: int | None = Field(None, ge=1, description="distinct seeds of the split TRAIN; null: without end")
    evaluate_on: Evaluation = Field(Evaluation.VALIDATION, description="seeds of the split EVAL")
    reset_options: dict[Literal["train", "validation", "test"], dict[str, Any]] = Field(
        default_factory=dict, description="options of reset by what the seed is used for, such as a folder of games"
    )
    seed: int = Field(0, ge=0, description="of the sequence of tasks")

    @field_validator("prompt", "reply")
    @classmethod
    def _shows_the_observation(cls, template: str) -> str:
        try:
            shown = template.format(observation="\0")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{error!r}; the only field is {{observation}}, other braces are doubled") from None
        if "\0" not in shown:
            raise ValueError("must contain {observation}")
        return template
