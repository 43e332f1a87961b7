"""Countdown: make the target from the given numbers, each used exactly once."""

from orchestrator.api import Component, Speaks, hookimpl

from .config import CountdownConfig


@hookimpl
def provide_environments() -> list[Component]:
    return [Component(name="countdown", config=CountdownConfig, build=".environment:Countdown", speaks=Speaks.MESSAGES)]
