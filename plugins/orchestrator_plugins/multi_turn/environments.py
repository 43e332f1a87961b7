"""The environments this plugin offers; each is imported when it is built."""

from __future__ import annotations

from orchestrator.api import Component, Speaks

from .mini_world.config import MiniWorldConfig
from .worlds_config import ChainSearchConfig, SearchQAConfig


def _chain_search(config: ChainSearchConfig):
    from .chain_search import ChainSearch

    return ChainSearch(config)


def _mini_world(config: MiniWorldConfig):
    from .mini_world.environment import MiniWorld

    return MiniWorld(config)


def _search_qa(config: SearchQAConfig):
    from .search_qa.environment import SearchQA

    return SearchQA(config)


ENVIRONMENTS = (
    Component(
        name="chain_search",
        config=ChainSearchConfig,
        build=_chain_search,
        speaks=Speaks.MESSAGES,
        summary="follow hidden links with a search tool, then answer; five turns at most",
        paper="arXiv:2511.20718",
    ),
    Component(
        name="mini_world",
        config=MiniWorldConfig,
        build=_mini_world,
        speaks=Speaks.MESSAGES,
        summary="text adventures of rooms, locks and keys with a quest of a chosen length and known solution",
        paper="arXiv:2510.01132",
    ),
    Component(
        name="search_qa",
        config=SearchQAConfig,
        build=_search_qa,
        speaks=Speaks.MESSAGES,
        summary="questions answered by searching one's own passages with BM25, in think, search and answer turns",
        paper="arXiv:2503.09516",
    ),
)
