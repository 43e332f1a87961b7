"""What the parts of an experiment file are made of: sections, and components with their options."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from orchestrator.contract.strict import StrictModel


class Section(StrictModel):
    """A part of an experiment file: frozen, refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ComponentSpec(StrictModel):
    """``{use: name, ...options}``; the options are judged by the component's own model."""

    model_config = ConfigDict(frozen=True, extra="allow")
    use: str = Field(description="name of an installed component; see `orchestrator plugins list`")

    @model_validator(mode="before")
    @classmethod
    def _spelt_out(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"expected a component; write {{use: {value}}}")
        return value

    @property
    def options(self) -> dict[str, Any]:
        """Everything beside ``use``."""
        return dict(self.model_extra or {})


class RewardSpec(ComponentSpec):
    """A reward with its weight in the sum."""

    weight: float = Field(1.0, description="factor of this reward in the score")
