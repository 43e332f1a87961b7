"""SuperHF: supervised steps on the best of several samples, held near the initial policy (arXiv:2310.16763)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import BestOfConfig, MeteorSimilarityConfig, PhraseShareConfig, SuperHFConfig

PAPER = "arXiv:2310.16763"


@hookimpl
def provide_samplers() -> list[Component]:
    return [Component(name="best_of", config=BestOfConfig, build=".sampler:BestOf", paper=PAPER)]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="meteor_similarity", config=MeteorSimilarityConfig, build=".similarity:MeteorSimilarity", paper=PAPER
        ),
        Component(name="phrase_share", config=PhraseShareConfig, build=".phrase:phrase_share", paper=PAPER),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [Component(name="superhf", config=SuperHFConfig, build=".objective:SuperHF", paper=PAPER)]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)
