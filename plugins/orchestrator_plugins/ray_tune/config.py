"""Options of the searcher."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from orchestrator.api import NamesCode, PluginConfig


class RayConfig(PluginConfig):
    """Options of the searcher ``ray``."""

    searcher: Annotated[str, NamesCode("module", deferred=True)] = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
        description="a subclass of ray.tune.search.Searcher as package.module:Class; imported only when a run starts",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="its keyword options; space, metric, mode and seed are given to it"
    )
