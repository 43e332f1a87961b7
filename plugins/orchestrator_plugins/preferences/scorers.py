"""What compares siblings: another reward, a function, a model. Each turns a group into a win matrix."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from orchestrator.api import Reward, RolloutGroup

from .answers import Comparison, Scorer, answer_text, same_texts
from .config import PreferenceConfig
from .matrix import bradley_terry, from_logits, from_probabilities, tie


def scorer_of(config: PreferenceConfig) -> Scorer:
    """Build the scorer an experiment asks for.

    :raises ImportError: the function's module does not import
    :raises ValueError: the module has no such function
    """
    if config.reward is not None:
        return RewardScorer(config.reward.build(), config.scale)
    if config.model is not None:
        from .models import ModelComparer

        return ModelComparer(config.model, config.scale)
    return FunctionScorer(_function(str(config.function)), config.gives, config.scale)


class RewardScorer:
    """Bradley-Terry over the scores of another reward."""

    def __init__(self, reward: Reward, scale: float):
        self.reward, self.scale = reward, scale

    def compare(self, group: RolloutGroup) -> Comparison:
        scores = [score.value for score in self.reward.score(group)]
        if len(scores) != len(group.rollouts):
            raise ValueError(f"the inner reward gave {len(scores)} scores for {len(group.rollouts)} rollouts")
        return Comparison(bradley_terry(scores, self.scale), scores)


class FunctionScorer:
    """A Python function of a task and the texts of its answers."""

    def __init__(self, function: Callable[..., Any], gives: str, scale: float):
        self.function, self.gives, self.scale = function, gives, scale

    def compare(self, group: RolloutGroup) -> Comparison:
        texts = [answer_text(rollout) for rollout in group.rollouts]
        found = np.asarray(self.function(group.task, texts), dtype=np.float64)
        expected = (len(texts),) if self.gives == "scores" else (len(texts), len(texts))
        if found.shape != expected:
            raise ValueError(
                f"preference function {self.function.__module__}:{self.function.__qualname__} returned the shape "
                f"{list(found.shape)} for {len(texts)} answers; expected {list(expected)}, as gives: {self.gives} says"
            )
        if self.gives == "scores":
            return Comparison(tie(bradley_terry(found, self.scale), same_texts(texts)), found.tolist())
        matrix = from_logits(found, self.scale) if self.gives == "logits" else from_probabilities(found)
        return Comparison(tie(matrix, same_texts(texts)))


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise ValueError(f"preference.function: module {module!r} has no function {name!r}")
    return function
