"""The rules of Dhumbal (Jhyap) on card ids: what may be discarded, what a hand is worth, who pays whom.

A card is an id 0..51, ``suit * 13 + rank``: suits spade, heart, diamond, club; ranks ace 0 to king 12, worth rank + 1.
A hand is a sequence of distinct ids in the order the cards came; where choices tie, that order decides.

Source: Dhumbal study (arXiv:2510.11736), section 3.1, and the code released with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

CARDS = 52
RANKS = 13
HAND_SIZE = 5
CALL_LIMIT = 10  # most points with which a player may call
PAYMENT_CAP = 100  # most coins one hand can cost
TURN_LIMIT = 100
START_COINS = 10_000

POINTS = tuple(card % RANKS + 1 for card in range(CARDS))  # by card id

# Three bits count the cards of a rank: the sum over a hand has a bit of _SAME set where a rank occurs twice or more.
_RANK_COUNT = tuple(1 << 3 * (card % RANKS) for card in range(CARDS))
_SAME = sum(0b110 << 3 * rank for rank in range(RANKS))
# Fourteen bits a suit: the empty one keeps the king of a suit from touching the next suit's ace.
_SUIT_BIT = tuple(1 << (card // RANKS * (RANKS + 1) + card % RANKS) for card in range(CARDS))

_SUIT_LETTERS = "SHDC"
_RANK_NAMES = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")


class Showdown(NamedTuple):
    """How a round was settled."""

    winner: int  # seat
    deltas: list[int]  # coins won or lost by seat; sums to 0


def hand_points(hand: Iterable[int]) -> int:
    """Add up the points of a hand of card ids."""
    return sum(POINTS[card] for card in hand)


def legal_discards(hand: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """List every set of cards that may be discarded in one turn.

    Single cards, two to four cards of one rank, three or more consecutive ranks of one suit (the ace is low only).

    :param hand: distinct card ids 0..51, of any number
    :returns: each set as ascending card ids; the sets in ascending order. At most 16 for five cards
    """
    cards = sorted(hand)
    count = suits = 0
    for card in cards:
        count += _RANK_COUNT[card]
        suits |= _SUIT_BIT[card]
    sets: list[tuple[int, ...]] = [(card,) for card in cards]
    same = count & _SAME
    runs = suits & suits >> 1 & suits >> 2
    if not same and not runs:
        return tuple(sets)
    if same:
        for group in rank_groups(cards):
            for size in range(2, len(group) + 1):
                sets += combinations(group, size)
    if runs:
        for run in maximal_runs(cards):
            for size in range(3, len(run) + 1):
                sets += (run[start : start + size] for start in range(len(run) - size + 1))
    sets.sort()
    return tuple(sets)


def is_legal_discard(cards: Sequence[int], hand: Sequence[int]) -> bool:
    """Say whether these cards, in any order, are one of the hand's legal discards."""
    return tuple(sorted(cards)) in legal_discards(hand)


def has_combination(hand: Iterable[int]) -> bool:
    """Say whether the hand holds two cards of a rank or a run of three."""
    count = suits = 0
    for card in hand:
        count += _RANK_COUNT[card]
        suits |= _SUIT_BIT[card]
    return bool(count & _SAME or suits & suits >> 1 & suits >> 2)


def rank_groups(hand: Iterable[int]) -> list[tuple[int, ...]]:
    """Group the cards of each rank that occurs at least twice; groups and cards in the order of the hand."""
    by_rank: dict[int, list[int]] = {}
    for card in hand:
        by_rank.setdefault(card % RANKS, []).append(card)
    return [tuple(cards) for cards in by_rank.values() if len(cards) > 1]


def maximal_runs(hand: Iterable[int]) -> list[tuple[int, ...]]:
    """List the runs of at least three ranks of one suit that cannot be extended.

    :returns: ascending card ids; suits in the order in which the hand first shows them
    """
    by_suit: dict[int, list[int]] = {}
    for card in hand:
        by_suit.setdefault(card // RANKS, []).append(card)
    found = []
    for cards in by_suit.values():
        if len(cards) < 3:
            continue
        cards.sort()
        run = [cards[0]]
        for card in cards[1:]:
            if card != run[-1] + 1:
                if len(run) > 2:
                    found.append(tuple(run))
                run = []
            run.append(card)
        if len(run) > 2:
            found.append(tuple(run))
    return found


def showdown(hands: Sequence[Sequence[int]], caller: int) -> Showdown:
    """Settle a round by the hands on the table.

    :param hands: card ids by seat
    :param caller: seat that called, or is taken for the caller
    """
    return settle([hand_points(hand) for hand in hands], caller)


def settle(values: Sequence[int], caller: int) -> Showdown:
    """Settle a round by the points of the hands.

    The caller wins when strictly lowest: each opponent pays the points of its hand, at most 100. Otherwise the first
    other seat at the minimum wins, and the caller alone pays it the points of all hands, its own and the winner's
    included, each at most 100.

    :param values: points by seat
    :raises ValueError: for a caller that is no seat
    """
    if not 0 <= caller < len(values):
        raise ValueError(f"caller {caller} is no seat; expected 0 to {len(values) - 1}")
    lowest = min(values)
    winner = next((seat for seat, value in enumerate(values) if value == lowest and seat != caller), caller)
    paid = [value if value < PAYMENT_CAP else PAYMENT_CAP for value in values]
    total = sum(paid)
    if winner == caller:
        deltas = [-value for value in paid]
        deltas[caller] = total - paid[caller]
    else:
        deltas = [0] * len(values)
        deltas[caller] = -total
        deltas[winner] = total
    return Showdown(winner, deltas)


def lowest_seat(values: Sequence[int]) -> int:
    """Find the first seat with the fewest points: the one a forced showdown takes for the caller.

    On a tie it loses as a failed caller; the released code does the same.
    """
    return min(range(len(values)), key=values.__getitem__)


def card_name(card: int) -> str:
    """Spell a card: rank, then the suit's letter, as in ``10H``."""
    return _RANK_NAMES[card % RANKS] + _SUIT_LETTERS[card // RANKS]


def card_id(name: str) -> int:
    """Read a card's name, as in ``KS`` or ``10H``.

    :raises ValueError: for anything else
    """
    rank, suit = name[:-1].upper(), name[-1:].upper()
    if rank not in _RANK_NAMES or not suit or suit not in _SUIT_LETTERS:
        raise ValueError(f"{name!r} is no card; expected a rank A, 2 to 10, J, Q or K and a suit S, H, D or C: 10H")
    return _SUIT_LETTERS.index(suit) * RANKS + _RANK_NAMES.index(rank)
