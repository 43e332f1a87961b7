"""Environments of Gymnasium whose actions are choices or texts. Needs the extra ``gymnasium``."""

from __future__ import annotations

from importlib.util import find_spec

from orchestrator.api import Component, Speaks, hookimpl

from .config import GymnasiumConfig, GymnasiumTextConfig

if find_spec("gymnasium") is None:  # not an import of it: listing plugins stays quick
    raise ImportError("the package gymnasium is not installed; pip install 'rl-orchestrator[gymnasium]'")


@hookimpl
def provide_environments() -> list[Component]:
    return [
        Component(
            name="gymnasium", config=GymnasiumConfig, build=".environment:GymnasiumEnvironment", speaks=Speaks.FEATURES
        ),
        Component(
            name="gymnasium_text", config=GymnasiumTextConfig, build=".text:GymnasiumText", speaks=Speaks.MESSAGES
        ),
    ]
