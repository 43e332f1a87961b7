"""The environments this plugin offers; each is imported when it is built."""

from __future__ import annotations

from orchestrator.api import Component, Speaks

from .mini_world.config import MiniWorldConfig
from .worlds_config import ChainSearchConfig, SearchQAConfig

ENVIRONMENTS: tuple[Component, ...] = (
    Component(
        name="chain_search",
        config=ChainSearchConfig,
        build=".chain_search:ChainSearch",
        speaks=Speaks.MESSAGES,
        paper="arXiv:2511.20718",
    ),
    Component(
        name="mini_world",
        config=MiniWorldConfig,
        build=".mini_world.environment:MiniWorld",
        speaks=Speaks.MESSAGES,
        paper="arXiv:2510.01132",
    ),
    Component(
        name="search_qa",
        config=SearchQAConfig,
        build=".search_qa.environment:SearchQA",
        speaks=Speaks.MESSAGES,
        paper="arXiv:2503.09516",
    ),
)
