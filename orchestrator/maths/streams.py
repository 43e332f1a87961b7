"""Streams of random words that follow from a seed alone, whatever else is drawn in the same call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(seeds: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """The first words of each seed's stream: [n, count] uint64.

    :param seeds: [n], of which the low 64 bits count

    Source: SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
    doi:10.1145/2660193.2660195).
    """
    if not isinstance(seeds, np.ndarray):
        seeds = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    words = seeds[:, None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def unit_interval(words: np.ndarray) -> np.ndarray:
    """Words as numbers in [0, 1), float64, by their upper 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
