"""Options of the searcher and the scheduler: what of Optuna to use, and its own keyword options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field, model_validator

from orchestrator.api import PluginConfig

from .named import unknown_options

_OPEN = ConfigDict(json_schema_extra={"additionalProperties": True})  # editors cannot know Optuna's options


def _gathered(value: Any, kind: str, default: str) -> Any:
    """Keyword options that stand beside the name are gathered under ``options``; Optuna's class must take them all."""
    if not isinstance(value, Mapping):
        return value
    beside = {name: option for name, option in value.items() if name not in (kind, "options")}
    options, name = value.get("options", {}), value.get(kind, default)
    if not isinstance(options, Mapping) or not isinstance(name, str):
        return value
    options = {**options, **beside}
    unknown = unknown_options(kind, name, options)
    if unknown:
        raise ValueError("; ".join(unknown))
    return {kind: name, "options": options}


class SamplerConfig(PluginConfig):
    """Options of the searcher ``optuna``."""

    model_config = _OPEN

    sampler: str = Field("TPESampler", description="a class of optuna.samplers")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="the sampler's keyword options, here or beside its name; its seed is tune.seed",
    )

    @model_validator(mode="before")
    @classmethod
    def _options_beside(cls, value: Any) -> Any:
        return _gathered(value, "sampler", "TPESampler")


class PrunerConfig(PluginConfig):
    """Options of the scheduler ``optuna_pruner``."""

    model_config = _OPEN

    pruner: str = Field("MedianPruner", description="a class of optuna.pruners")
    options: dict[str, Any] = Field(
        default_factory=dict, description="the pruner's keyword options, here or beside its name"
    )

    @model_validator(mode="before")
    @classmethod
    def _options_beside(cls, value: Any) -> Any:
        return _gathered(value, "pruner", "MedianPruner")
