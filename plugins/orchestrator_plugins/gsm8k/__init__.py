"""GSM8K: grade-school word problems whose answer is one number (arXiv:2110.14168)."""

from orchestrator.api import Component, Speaks, hookimpl

from .config import Gsm8kConfig


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="gsm8k",
            config=Gsm8kConfig,
            build=".environment:Gsm8k",
            speaks=Speaks.MESSAGES,
            paper="arXiv:2110.14168",
        )
    ]
