"""The environments this plugin offers; each is imported when it is built."""

from __future__ import annotations

from orchestrator.api import Component, Speaks

from .worlds_config import ChainSearchConfig


def _chain_search(config: ChainSearchConfig):
    from .chain_search import ChainSearch

    return ChainSearch(config)


ENVIRONMENTS = (
    Component(
        name="chain_search",
        config=ChainSearchConfig,
        build=_chain_search,
        speaks=Speaks.MESSAGES,
        summary="follow hidden links with a search tool, then answer; five turns at most",
        paper="arXiv:2511.20718",
    ),
)
