"""SuperHF: supervised steps on the best of several samples, held near the initial policy (arXiv:2310.16763)."""

from orchestrator.api import Component, Recipe, hookimpl

from .config import BestOfConfig, MeteorSimilarityConfig, PhraseShareConfig, SuperHFConfig

PAPER = "arXiv:2310.16763"


@hookimpl
def provide_samplers() -> list[Component]:
    return [
        Component(
            name="best_of",
            config=BestOfConfig,
            build=".sampler:BestOf",
            summary="samples each task several times and keeps the best",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_rewards() -> list[Component]:
    return [
        Component(
            name="meteor_similarity",
            config=MeteorSimilarityConfig,
            build=".similarity:MeteorSimilarity",
            summary="scores nothing; measures at evaluation how alike the answers to different tasks are",
            paper=PAPER,
        ),
        Component(
            name="phrase_share",
            config=PhraseShareConfig,
            build=_phrase,
            summary="share of an answer's words that are one phrase: added to another reward, a proxy to be gamed",
            paper=PAPER,
        ),
    ]


@hookimpl
def provide_objectives() -> list[Component]:
    return [
        Component(
            name="superhf",
            config=SuperHFConfig,
            build=".objective:SuperHF",
            summary="cross-entropy plus full-vocabulary forward KL to the initial policy",
            paper=PAPER,
        )
    ]


@hookimpl
def provide_recipes() -> list[Recipe]:
    from .recipes import RECIPES

    return list(RECIPES)


def _phrase(config: PhraseShareConfig):
    from .phrase import PhraseShare

    return PhraseShare(config.phrase)
