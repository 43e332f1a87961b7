"""Who plays: the protocol of a player, the four rule styles of the study and the random player.

The styles keep the released code's arithmetic to the last bit, the order of operations included, so that a tournament
on the same random stream repeats the published one. What they leave out is what never changes a choice: subsets of a
rank group (the whole group always scores more) and all singles but the highest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .game import Phase, Round
from .rules import CALL_LIMIT, POINTS, has_combination, legal_discards, maximal_runs, rank_groups

MULTI_CARD_BONUS = 2.0  # per card of a discard of several
RUN_BONUS = 3.0
READY_BONUS = 50.0  # the hand left behind may call
SAFETY = 5  # points the styles expect of the next card when they break up a hand that could call


class Player(Protocol):
    """Decides for the seat to act. Honest players look at their own hand and at what lies open."""

    name: str

    def call(self, game: Round) -> bool:
        """Call Jhyap? Asked only when the hand allows it."""

    def discard(self, game: Round) -> Sequence[int]:
        """Choose the cards to discard."""

    def draw(self, game: Round) -> bool:
        """Take the pile's card (True) or the deck's."""


def play(game: Round, players: Sequence[Player]) -> Round:
    """Play a round to its end.

    :param players: by seat
    :returns: the same round, over
    """
    points = game.points
    # A round may be handed over in mid-turn; the loop below starts with a turn's call.
    if game.phase == Phase.DISCARD:
        act(game, players[game.seat])
    if game.phase == Phase.DRAW:
        act(game, players[game.seat])
    while game.phase != Phase.OVER:
        seat = game.seat
        player = players[seat]
        if points[seat] <= CALL_LIMIT:
            game.call(player.call(game))
            if game.phase == Phase.OVER:
                break
        game.discard(player.discard(game))
        if game.phase == Phase.DRAW:
            game.draw(player.draw(game))
    return game


def act(game: Round, player: Player) -> None:
    """Let the player make the one decision that is due."""
    if game.phase == Phase.CALL:
        decide(game, player.call(game))
    elif game.phase == Phase.DISCARD:
        decide(game, player.discard(game))
    else:
        decide(game, player.draw(game))


def decide(game: Round, decision: bool | Sequence[int]) -> None:
    """Carry out a decision of the phase: call or not, these cards, the pile's card or the deck's."""
    if game.phase == Phase.CALL:
        game.call(bool(decision))
    elif game.phase == Phase.DISCARD:
        assert not isinstance(decision, bool)
        game.discard(decision)
    else:
        game.draw(bool(decision))


class RandomPlayer:
    """A fair coin for calling and drawing, a uniform choice among the legal discards."""

    name = "random"

    def call(self, game: Round) -> bool:
        """Toss a coin."""
        return game.rng.random() < 0.5

    def discard(self, game: Round) -> Sequence[int]:
        """Choose uniformly."""
        legal = legal_discards(game.hands[game.seat])
        return legal[int(game.rng.random() * len(legal))]

    def draw(self, game: Round) -> bool:
        """Toss a coin."""
        return game.rng.random() < 0.5


class StylePlayer:
    """What the four styles share: discards by a score, draws by a threshold.

    Source: arXiv:2510.11736, section 3.2.1, with the constants of the released code.
    """

    name = "style"
    pick_base = 4  # most points of a pile card worth taking; the study's P
    value_weight = 0.8  # of the points discarded; the study's h
    risk_factor = 1.0  # scales all scores alike and so never changes a choice; the study's k

    def call(self, game: Round) -> bool:
        """Decide by the style's own rule."""
        raise NotImplementedError(f"{type(self).__name__} has no rule for calling")

    def discard(self, game: Round) -> Sequence[int]:
        """Choose the discard with the best score, the first of equals."""
        seat = game.seat
        return self.choose_discard(game.hands[seat], game.points[seat])

    def choose_discard(self, hand: Sequence[int], points: int) -> Sequence[int]:
        """Choose from a hand worth so many points.

        Candidates in order: singles, groups of a rank, maximal runs.
        """
        if points <= CALL_LIMIT:
            return _discard_below_limit(hand, points)
        highest = max(hand, key=POINTS.__getitem__)
        if not has_combination(hand):
            return (highest,)
        best: tuple[int, ...] = (highest,)
        best_score = self.score(best, points)
        for cards in rank_groups(hand):
            score = self.score(cards, points)
            if score > best_score:
                best, best_score = cards, score
        for cards in maximal_runs(hand):
            score = self.score(cards, points, run=True)
            if score > best_score:
                best, best_score = cards, score
        return best

    def score(self, cards: Sequence[int], points: int, *, run: bool = False) -> float:
        """Score a discard from a hand worth ``points``, more than 10.

        ``k (h D + 2 n [n > 1] + 3 [run] + 50 [points - D <= 10] + 10 D / points)`` with ``D`` the points of the
        ``n`` cards.
        """
        worth = 0
        for card in cards:
            worth += POINTS[card]
        score = worth * self.value_weight
        if len(cards) > 1:
            score += len(cards) * MULTI_CARD_BONUS
        if run:
            score += RUN_BONUS
        if points - worth <= CALL_LIMIT:
            score += READY_BONUS
        score += worth / points * 10
        return score * self.risk_factor

    def draw(self, game: Round) -> bool:
        """Take the pile's card when it is cheap enough for the hand."""
        return POINTS[game.offered] <= self.pick_threshold(game.points[game.seat])

    def pick_threshold(self, points: int) -> int:
        """Most points of a pile card worth taking to a hand worth ``points`` after the discard."""
        if points > 15:
            return self.pick_base + 2
        return self.pick_base - 1 if points <= 12 else self.pick_base


class Aggressive(StylePlayer):
    """Calls whenever it may."""

    name = "aggressive"
    value_weight = 1.0
    risk_factor = 1.2

    def call(self, game: Round) -> bool:
        """Always."""
        return True


class Conservative(StylePlayer):
    """Calls with seven points or fewer."""

    name = "conservative"
    pick_base = 3
    value_weight = 0.6
    risk_factor = 0.8

    def call(self, game: Round) -> bool:
        """With at most 7 points."""
        return game.points[game.seat] <= 7


class Balanced(StylePlayer):
    """Calls surely with five points or fewer, with probability 0.7 up to eight, 0.4 beyond."""

    name = "balanced"

    def call(self, game: Round) -> bool:
        """By the hand's points; draws one random number above 5."""
        points = game.points[game.seat]
        return points <= 5 or game.rng.random() < (0.7 if points <= 8 else 0.4)


class Opportunistic(StylePlayer):
    """Calls more readily when it has more coins than the average, and late in the round."""

    name = "opportunistic"

    def __init__(self) -> None:
        self.risk_factor = 1.0

    def call(self, game: Round) -> bool:
        """Surely with at most 7 points; otherwise by chance, from coins, points and turn."""
        points = game.points[game.seat]
        ahead = game.coins[game.seat] > sum(game.coins) / len(game.coins)
        self.risk_factor = 1.2 if ahead else 0.8
        if points <= 7:
            return True
        chance = 0.8 if ahead else 0.3
        chance += (CALL_LIMIT - points) * 0.05
        if game.turn > 20:
            chance += 0.15
        return game.rng.random() < chance


def _discard_below_limit(hand: Sequence[int], points: int) -> Sequence[int]:
    """Discard from a hand that could call: the highest safe single, else the first safe group, else the lowest card.

    Safe: what is left stays callable with 5 more points.
    """
    least = points + SAFETY - CALL_LIMIT
    safe = [card for card in hand if POINTS[card] >= least]
    if safe:
        return (max(safe, key=POINTS.__getitem__),)
    for group in rank_groups(hand):
        for size in range(2, len(group) + 1):
            # All cards of a group are worth the same, so the first subset of a size stands for all of that size.
            if size * POINTS[group[0]] >= least:
                return group[:size]
    return (min(hand, key=POINTS.__getitem__),)


STYLES = {player.name: player for player in (Aggressive, Conservative, Balanced, Opportunistic)}
