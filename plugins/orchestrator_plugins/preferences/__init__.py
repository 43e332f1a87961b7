"""Preferences: win rates over siblings from any scorer, and the pairwise objectives DPO and IPO."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import DpoConfig, IpoConfig, PreferenceConfig


@hookimpl
def provide_rewards() -> list[Component]:
    return [Component(name="preference", config=PreferenceConfig, build=".reward:preference")]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(name="dpo", config=DpoConfig, build=".objectives:Dpo", paper="arXiv:2305.18290"),
        Component(name="ipo", config=IpoConfig, build=".objectives:Ipo", paper="arXiv:2310.12036"),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
