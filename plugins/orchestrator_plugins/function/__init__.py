"""The reward ``function``: a plain Python function over texts, from a file or given from Python."""

from orchestrator.api import Component, Speaks, hookimpl

from .config import FunctionConfig


@hookimpl
def provide_rewards() -> list[Component]:
    return [Component(name="function", config=FunctionConfig, build=".reward:FunctionReward", speaks=Speaks.MESSAGES)]
