"""Win matrices: W[i, j] is the probability that answer i beats answer j; W + W' = 1 and W[i, i] = 1/2."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bradley_terry(scores: ArrayLike, scale: float = 1.0) -> NDArray[np.float64]:
    """Win matrix of K scalar scores: the logistic function of scaled differences.

    :param scores: [K]; nan: that answer's comparisons are missing
    :param scale: a difference of 1 / scale is one unit of the logistic function
    :returns: [K, K], nan off the diagonal where missing
    Source: Bradley and Terry 1952 (doi:10.2307/2334029).
    """
    values = np.asarray(scores, dtype=np.float64)
    return _halve_diagonal(_logistic(scale * (values[:, None] - values[None, :])))


def from_logits(logits: ArrayLike, scale: float = 1.0) -> NDArray[np.float64]:
    """Win matrix of a pairwise scorer's logits, row over column; see :func:`from_probabilities`."""
    return from_probabilities(_logistic(scale * np.asarray(logits, dtype=np.float64)))


def from_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Win matrix of a pairwise scorer that need not agree with itself when the order is turned round.

    :param probabilities: [K, K], row over column, in [0, 1]; nan where not known. The diagonal is not read
    :returns: [K, K], the mean of what the two orders say, of one where only one is known, nan where none is
    :raises ValueError: when a number is not in [0, 1]
    """
    one = np.asarray(probabilities, dtype=np.float64)
    outside = one[(one < 0) | (one > 1)]
    if outside.size:
        raise ValueError(f"probabilities hold {outside.flat[0]}; expected numbers in [0, 1], or nan where not known")
    other = 1.0 - one.T
    both = 0.5 * (one + other)
    return _halve_diagonal(np.where(np.isnan(both), np.where(np.isnan(one), other, one), both))


def tie(matrix: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Set the comparisons of equal answers to 1/2.

    :param same: [K, K], symmetric
    """
    return np.where(same, 0.5, matrix)


def win_rates(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K] mean of each row over the comparisons that are known, itself included.

    Source: SPPO (arXiv:2405.00675), sec. 4. With nothing missing the mean of all is exactly 1/2.
    """
    return np.nanmean(matrix, axis=1)


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1.0 + np.tanh(0.5 * values))  # antisymmetric about 1/2, and never overflows


def _halve_diagonal(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = matrix.copy()
    np.fill_diagonal(matrix, 0.5)
    return matrix
