"""Preferences: win rates over siblings from any scorer, and the pairwise objectives DPO and IPO."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import DpoConfig, IpoConfig, PreferenceConfig


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="preference",
            config=PreferenceConfig,
            build=_preference,
            summary="win rate over the siblings, from a reward, a Hugging Face model or a function that compares",
        )
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="dpo",
            config=DpoConfig,
            build=".objectives:Dpo",
            summary="direct preference optimisation over pairs of siblings, the better score preferred",
            paper="arXiv:2305.18290",
        ),
        Component(
            name="ipo",
            config=IpoConfig,
            build=".objectives:Ipo",
            summary="identity preference optimisation: regress the pair's log-ratios on a margin",
            paper="arXiv:2310.12036",
        ),
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


def _preference(config: PreferenceConfig):
    from .reward import Preference
    from .scorers import scorer_of

    return Preference(scorer_of(config))
