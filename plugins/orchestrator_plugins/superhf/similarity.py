"""How alike the answers to different tasks are: METEOR, the paper's sign of a policy that games its reward."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random
from statistics import fmean
from typing import Any

from orchestrator.api import RolloutGroup, Score

from .config import MeteorSimilarityConfig
from .sampler import answer


class MeteorSimilarity:
    """Measures, at evaluation, the mean METEOR over random pairs of answers to different tasks.

    As a reward it scores 0: it is never trained on. It is one so that an experiment can name it and give it options.
    """

    def __init__(self, config: MeteorSimilarityConfig):
        self.config = config
        self._words = _Words(stem=config.stem, synonyms=config.synonyms)

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        return [Score(value=0.0) for _ in group.rollouts]

    def evaluate(self, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """``meteor_similarity`` of an evaluation's rollouts; nothing with fewer than two tasks."""
        answers = [[answer(rollout) for rollout in group.rollouts] for group in groups if group.rollouts]
        if len(answers) < 2:
            return {}
        random = Random(self.config.seed)
        pairs = []
        for _ in range(self.config.pairs):
            one, other = random.sample(range(len(answers)), 2)
            pairs.append((random.choice(answers[one]), random.choice(answers[other])))
        return {"meteor_similarity": fmean(self._words.meteor(one, other) for one, other in pairs)}


def meteor(reference: str, hypothesis: str, *, stem: bool = False, synonyms: bool = False) -> float:
    """METEOR of one text against another: words found, weighed to recall, less a penalty for scattered order.

    Words are split at white space and lower-cased; equal words match, then Porter stems, then WordNet synonyms.

    :returns: in [0, 1]; below 1 even for equal texts, by the penalty of one chunk
    :raises LookupError: ``synonyms`` without nltk's corpus
    Source: Banerjee and Lavie 2005, with alpha 0.9, beta 3, gamma 0.5, as in nltk, whose code this calls.
    """
    return _Words(stem=stem, synonyms=synonyms).meteor(reference, hypothesis)


def similarity(texts: Sequence[str], *, stem: bool = False, synonyms: bool = False) -> float:
    """Mean METEOR over all ordered pairs of different texts.

    :raises ValueError: fewer than two texts
    """
    if len(texts) < 2:
        raise ValueError(f"{len(texts)} texts; similarity needs two or more")
    words = _Words(stem=stem, synonyms=synonyms)
    return fmean(words.meteor(one, other) for one, other in permutations(texts, 2))


class _Words:
    """nltk's METEOR with the stages one wants; without synonyms it needs no corpus."""

    def __init__(self, *, stem: bool, synonyms: bool):
        try:
            from nltk.stem.porter import PorterStemmer
            from nltk.translate.meteor_score import single_meteor_score
        except ImportError as error:
            raise ImportError("METEOR needs nltk: pip install 'rl-orchestrator[superhf]'") from error
        self._score = single_meteor_score
        self._options: dict[str, Any] = {
            "stemmer": PorterStemmer() if stem else _AsIs(),
            "wordnet": _wordnet() if synonyms else _NoSynonyms(),
        }

    def meteor(self, reference: str, hypothesis: str) -> float:
        one, other = reference.lower().split(), hypothesis.lower().split()
        return float(self._score(one, other, **self._options)) if one and other else 0.0


class _AsIs:
    def stem(self, word: str) -> str:
        return word


class _NoSynonyms:
    def synsets(self, word: str) -> tuple[()]:
        return ()


def _wordnet() -> Any:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise LookupError("METEOR with synonyms needs nltk's corpus: python -m nltk.downloader wordnet") from error
    return wordnet
