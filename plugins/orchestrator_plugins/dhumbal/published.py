"""The study's printed results, for tables that set ours beside them.

Source: the result files released with arXiv:2510.11736 (rule tournament, search tournament, championship of
October 2025 and its rerun of June 2026). Percentages, coins per round, Pearson correlations, milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple


class PublishedRow(NamedTuple):
    """One player of a published table; None where nothing was printed."""

    win_rate: float
    half_width: float
    coins: float
    call_success: float | None
    cards: float | None
    risk: float | None
    milliseconds: float | None


RULES = {
    "aggressive": PublishedRow(35.06, 2.92, 6.16, 76.17, 1.10, -0.184, None),
    "conservative": PublishedRow(19.43, 2.42, -2.23, 93.65, 1.11, -0.180, None),
    "balanced": PublishedRow(25.10, 2.66, 0.07, 80.59, 1.11, -0.277, None),
    "opportunistic": PublishedRow(20.41, 2.47, -4.00, 72.10, 1.13, -0.344, None),
}
SEARCH = {
    "mcts": PublishedRow(47.1, 3.1, -1.0, 97.7, None, None, 2469),
    "ismcts": PublishedRow(52.9, 3.1, 1.0, 98.2, None, None, 2775),
}
CHAMPIONSHIP = {
    "aggressive": PublishedRow(88.3, 2.0, 70.1, 92.6, 9.5, -0.11, 0.0),
    "ismcts": PublishedRow(9.0, 1.8, -12.8, 100.0, 9.3, None, 1450.7),
    "ppo": PublishedRow(1.5, 0.7, -29.2, 87.5, 8.2, -0.23, 2.4),
    "random": PublishedRow(1.3, 0.7, -28.0, 81.8, 8.3, -0.12, 0.0),
}
CHAMPIONSHIP_RERUN = {
    "aggressive": PublishedRow(88.9, 1.9, 69.3, 92.9, 9.5, -0.12, 0.0),
    "ismcts": PublishedRow(9.3, 1.8, -12.4, 96.0, 9.5, -0.42, 1444.7),
    "ppo": PublishedRow(0.2, 0.3, -29.6, 50.0, 8.7, -0.71, 2.4),
    "random": PublishedRow(1.7, 0.8, -27.3, 83.3, 9.1, -0.18, 0.0),
}

TABLES: dict[str, dict[str, dict[str, PublishedRow]]] = {
    "none": {},
    "rules": {"published": RULES},
    "search": {"published": SEARCH},
    "championship": {"Oct 2025": CHAMPIONSHIP, "Jun 2026": CHAMPIONSHIP_RERUN},
}
