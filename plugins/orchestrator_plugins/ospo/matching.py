"""Maximum-weight matching of vehicles and requests, staying idle being worth nothing."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

NEVER = -1e8  # score of a pair that must not be made
ALWAYS = 1e8  # score of a pair that exploration puts first


def match(scores: np.ndarray) -> np.ndarray:
    """Choose pairs so that the sum of their scores is greatest.

    :param scores: [V, M]; a pair with a negative score is never made
    :returns: [V] int64, the request of each vehicle, -1 for none

    Adding one idle column of score 0 per vehicle gives the same optimum as raising negative scores to 0 and undoing
    the pairs they were raised for, which is what is done: the problem stays small.
    """
    chosen = np.full(len(scores), -1, dtype=np.int64)
    if scores.size:
        rows, columns = linear_sum_assignment(np.maximum(scores, 0.0), maximize=True)
        made = scores[rows, columns] >= 0
        chosen[rows[made]] = columns[made]
    return chosen
