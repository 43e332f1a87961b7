"""What a tournament says: the study's table per player, tests for every pair, the bootstrap over deals."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from .statistics import cohens_d, correlation, half_width, paired_bootstrap, welch
from .tournament import RoundRecord, Tournament

SERIES = ("wins", "coins", "calls")


def running_metrics(names: Sequence[str], records: Sequence[RoundRecord]) -> dict[str, float]:
    """The metrics of a tournament in progress: win rate in percent and coins per round by player."""
    count = len(records)
    wins = Counter(record.winner for record in records)
    metrics = {"dhumbal/rounds": float(count)}
    for player, name in enumerate(names):
        metrics[f"dhumbal/win_rate/{name}"] = 100 * wins[player] / count
        metrics[f"dhumbal/coins/{name}"] = sum(record.deltas[player] for record in records) / count
    metrics["dhumbal/turns/mean"] = sum(record.turns for record in records) / count
    return metrics


def summarise(tournament: Tournament, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """All results as plain JSON; None stands for what cannot be computed."""
    config = tournament.config
    return {
        "kind": "dhumbal_tournament",
        "published": config.published,
        "rounds": len(records),
        "deals": len({record.deal for record in records}),
        "seating": config.seating,
        "pickup": str(config.pickup),
        "seed": tournament.seed,
        "turns_per_round": sum(record.turns for record in records) / len(records),
        "endings": dict(sorted(Counter(record.ending for record in records).items())),
        "reshuffles": sum(record.reshuffles for record in records),
        "seat_win_rate": _seat_win_rates(records),
        "final_coins": list(tournament.coins),
        "table": [_row(tournament, records, player) for player in range(len(tournament.names))],
        "pairs": _pairs(tournament, records),
        "alpha": 0.05 / math.comb(len(tournament.names), 2),
    }


def _row(tournament: Tournament, records: Sequence[RoundRecord], player: int) -> dict[str, Any]:
    count = len(records)
    share = sum(record.winner == player for record in records) / count
    called = [record for record in records if record.caller == player]
    successes = [float(record.success) for record in called]
    decisions = tournament.decisions[player]
    return {
        "player": tournament.names[player],
        "win_rate": 100 * share,
        "half_width": 100 * half_width(share, count),
        "coins": sum(record.deltas[player] for record in records) / count,
        "calls": len(called),
        "call_success": 100 * sum(successes) / len(called) if called else None,
        "cards": sum(record.discarded[player] for record in records) / count,
        "cards_asked_again": sum(record.asked_again[player] for record in records) / count,
        "risk": correlation([float(record.points[player]) for record in called], successes),
        "milliseconds": 1000 * tournament.seconds[player] / decisions if decisions else None,
    }


def _pairs(tournament: Tournament, records: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    if len(records) < 2:
        return []
    players = range(len(tournament.names))
    series = {
        "wins": [np.array([float(r.winner == p) for r in records]) for p in players],
        "coins": [np.array([float(r.deltas[p]) for r in records]) for p in players],
        "calls": [np.array([float(r.caller == p) for r in records]) for p in players],
    }
    # A deal cut short by bankruptcy has fewer rounds; its mean still stands for the deal.
    deals = np.array([record.deal for record in records])
    size = np.bincount(deals)
    pairs = []
    for a, b in itertools.combinations(players, 2):
        pair: dict[str, Any] = {"players": [tournament.names[a], tournament.names[b]]}
        for name in SERIES:
            x, y = series[name][a], series[name][b]
            test = welch(x, y)
            pair[name] = {
                "d": cohens_d(x, y, released=True),
                "t": _number(test.t),
                "df": _number(test.df),
                "p": _number(test.p),
            }
            if len(size) > 1 and name != "calls":
                means = [np.bincount(deals, weights=values) / size for values in (x, y)]
                difference = paired_bootstrap(*means, resamples=tournament.config.resamples, seed=tournament.seed)
                pair[name]["bootstrap"] = difference._asdict()
        pairs.append(pair)
    return pairs


def _seat_win_rates(records: Sequence[RoundRecord]) -> list[float]:
    wins = Counter(record.seats[record.winner] for record in records)
    return [100 * wins[seat] / len(records) for seat in range(len(records[0].seats))]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
