"""Draw one action a row: masked, tempered, truncated, each row from its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.api import splitmix64, unit_interval

ILLEGAL = np.float32(-1e9)  # logit of an illegal action: probability exactly 0, and no infinity to turn into nan


def uniforms(seeds: Sequence[int]) -> np.ndarray:
    """Draw one number in (0, 1) for each seed, whatever other seeds are in the call.

    :returns: [B] float64
    """
    return unit_interval(splitmix64(seeds, 1)[:, 0]) + 2.0**-54


def log_softmax(logits: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """[B, A] float32 log-probabilities over the legal actions; about -1e9 elsewhere."""
    masked = np.where(legal, logits, ILLEGAL)
    masked = masked - masked.max(axis=1, keepdims=True)
    return masked - np.log(np.exp(masked).sum(axis=1, keepdims=True))


def truncate(logprobs: np.ndarray, legal: np.ndarray, top_k: np.ndarray, top_p: np.ndarray) -> np.ndarray:
    """Keep the ``top_k`` likeliest actions (0: all) and of those the smallest set of mass ``top_p``.

    :returns: [B, A] bool, at least one True a row; equally likely actions are kept in the order of their index
    """
    order = np.argsort(-logprobs, axis=1, kind="stable")
    ranked = np.take_along_axis(np.exp(logprobs), order, axis=1)
    count = logprobs.shape[1]
    kept = np.arange(count)[None, :] < np.where(top_k > 0, top_k, count)[:, None]
    ranked = np.where(kept, ranked, 0.0)
    ranked = ranked / ranked.sum(axis=1, keepdims=True)
    before = np.cumsum(ranked, axis=1) - ranked
    kept &= (before < top_p[:, None]) | (np.arange(count) == 0)
    result = np.zeros_like(legal)
    np.put_along_axis(result, order, kept, axis=1)
    return result & legal


def draw(logprobs: np.ndarray, seeds: Sequence[int]) -> np.ndarray:
    """Draw an action a row by inverting the cumulative distribution.

    :param logprobs: [B, A], normalised
    :returns: [B] int64, never an action of probability 0
    """
    cumulative = np.cumsum(np.exp(logprobs.astype(np.float64)), axis=1)
    threshold = uniforms(seeds) * cumulative[:, -1]
    return (cumulative <= threshold[:, None]).sum(axis=1)
