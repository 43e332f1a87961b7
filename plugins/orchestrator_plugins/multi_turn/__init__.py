"""Multi-turn agents: credit by turn, reward placement, curricula, worlds to try them in (arXiv:2510.01132)."""

from __future__ import annotations

from orchestrator.api import Component, hookimpl

PAPER = "arXiv:2510.01132"


@hookimpl
def provide_environments() -> list[Component]:
    return []
