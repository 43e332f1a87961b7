"""Countdown: make the target from the given numbers, each used exactly once."""

from orchestrator.api import Component, Speaks, hookimpl

from .config import CountdownConfig


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="countdown",
            config=CountdownConfig,
            build=".environment:Countdown",
            speaks=Speaks.MESSAGES,
            summary="arithmetic puzzles with guaranteed solutions and many right answers",
        )
    ]
