"""A multi-layer perceptron over numeric features, with a legal-action mask and an optional critic."""

from __future__ import annotations

from orchestrator.api import Component, Speaks, hookimpl

from .config import MlpConfig


@hookimpl
def provide_policies() -> list[Component]:
    return [Component(name="mlp", config=MlpConfig, build=".policy:MlpPolicy", speaks=Speaks.FEATURES)]
