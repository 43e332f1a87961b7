"""P3O: pairwise proximal policy optimisation (arXiv:2310.00212)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import P3OConfig, ShiftedConfig

PAPER = "arXiv:2310.00212"


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="p3o",
            config=P3OConfig,
            build=".objective:P3O",
            summary="policy gradient of sibling pairs: only differences of rewards count, whole responses are clipped",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="shifted",
            config=ShiftedConfig,
            build=_shifted,
            summary="another reward plus a constant of each task's own: what preference-trained rewards leave open",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


def _shifted(config: ShiftedConfig):
    from .shifted import Shifted

    return Shifted(config.reward.build(), config.deviation)
