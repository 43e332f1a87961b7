"""What a network sees of a round, and what its outputs mean; one module for training and for play.

The released code trained and played with different layouts and different meanings of an index. Here both sides call
the same two functions; the old layouts remain under their names, for parity.

| name | length | layout after 52 hand cards and 52 for the pile's top |
|---|---|---|
| e104 | 104 | nothing |
| e117_train | 117 | seat (5); points/65, turn/50, mean opponent hand/5, own coins, mean opponents' coins; phase (3) |
| e117_duel | 117 | seat (2); points/65, turn/100, pile/52, own hand/5, opponent's hand/5, own coins, opponent's coins; phase (3); 0 |
| e117_championship | 117 | deck/52, turn/100, own coins, coins of four seats, phase (3) from index 110 on (which overwrites the fourth balance), points/65, hand/5, pile/52, round/1024 |
| e128 | 128 | seat (4); hand sizes/5 (4); four ones; points/65, turn/100, pile/52, 0; phase (3); five zeros |

Coins are divided by the starting balance. The seven numbers of ``e117_duel`` follow no published layout: their order is
our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from itertools import combinations

import numpy as np

from .game import Phase, Round
from .rules import CARDS, HAND_SIZE, RANKS, START_COINS, TURN_LIMIT, legal_discards

MOST_DISCARDS = 16  # of five cards
FLAT_HEAD = 128

LENGTHS = {"e104": 104, "e117_train": 117, "e117_duel": 117, "e117_championship": 117, "e128": 128}
SEATS = {"e104": 5, "e117_train": 5, "e117_duel": 2, "e117_championship": 4, "e128": 4}  # most a layout can name


def encode(game: Round, seat: int, layout: str, *, start_coins: int = START_COINS) -> np.ndarray:
    """Lay out what a seat sees of a round.

    :param start_coins: balance that counts as 1
    :returns: [D] float32
    :raises ValueError: more seats than the layout can name
    """
    if game.seats > SEATS[layout]:
        raise ValueError(f"encoding {layout!r} names at most {SEATS[layout]} seats; the round has {game.seats}")
    values = np.zeros(LENGTHS[layout], dtype=np.float32)
    values[game.hands[seat]] = 1
    if game.pile:
        values[CARDS + game.pile[-1]] = 1
    _LAYOUTS[layout](values, game, seat, start_coins)
    return values


def head_size(head: str) -> int:
    """Number of outputs of an action head.

    ``sets``: one for every set of cards that can be discarded, then call [no, yes], draw [deck, pile]; ``phases``: one for
    each place in the list of legal discards, then the same four; ``flat128``: the phase's moves from index 0 on.
    """
    if head == "sets":
        return len(_every_set()[0]) + 4
    return MOST_DISCARDS + 4 if head == "phases" else FLAT_HEAD


def legal_actions(game: Round, head: str, defects: Collection[str] = ()) -> np.ndarray:
    """Mark the outputs that mean something for the seat to act.

    :returns: [A] bool; all True under the defect ``modulo``, which wraps every index
    """
    legal = np.zeros(head_size(head), dtype=bool)
    if "modulo" in defects:
        legal[:] = True
    else:
        legal[_outputs(game, head)] = True
    return legal


def choice(game: Round, action: int, head: str, defects: Collection[str] = ()) -> bool | tuple[int, ...]:
    """Read an output: the cards to discard, whether to call, or whether to draw from the pile.

    Discards come in the order of :func:`~.rules.legal_discards`, a call as [no, yes], a draw as [deck, pile].

    :param defects: ``modulo`` wraps the index into the phase's moves, ``call_first`` reads a call as [yes, no]
    :raises ValueError: an output without meaning in this phase
    """
    outputs = _outputs(game, head)
    if "modulo" in defects:
        action = outputs[action % len(outputs)]
    if action not in outputs:
        raise ValueError(
            f"action {action} means nothing while seat {game.seat} is to {game.phase.name.lower()}; expected one of "
            f"{list(outputs)}"
        )
    index = outputs.index(action)
    if game.phase == Phase.DISCARD:
        return legal_discards(game.hands[game.seat])[index]
    if game.phase == Phase.CALL:
        return bool(index) != ("call_first" in defects)
    return bool(index)


def _outputs(game: Round, head: str) -> Sequence[int]:
    """The output of each of the phase's moves, in their order."""
    if game.phase == Phase.OVER:
        raise ValueError("the round is over; nobody is to act")
    if game.phase == Phase.DISCARD:
        legal = legal_discards(game.hands[game.seat])
        if head != "sets":
            return range(len(legal))
        place = _every_set()[1]
        return [place[cards] for cards in legal]
    if head == "flat128":
        return range(2)
    size = head_size(head)
    return range(size - 4, size - 2) if game.phase == Phase.CALL else range(size - 2, size)


@cache
def _every_set() -> tuple[tuple[tuple[int, ...], ...], dict[tuple[int, ...], int]]:
    """Every set of up to five cards that some hand may discard, singles first, and the place of each."""
    singles = [(card,) for card in range(CARDS)]
    ranks = [tuple(range(rank, CARDS, RANKS)) for rank in range(RANKS)]
    same = [cards for rank in ranks for size in (2, 3, 4) for cards in combinations(rank, size)]
    runs = [
        tuple(range(suit + low, suit + low + size))
        for suit in range(0, CARDS, RANKS)
        for size in range(3, HAND_SIZE + 1)
        for low in range(RANKS - size + 1)
    ]
    every = (*singles, *same, *runs)
    return every, {cards: place for place, cards in enumerate(every)}


def _nothing(values: np.ndarray, game: Round, seat: int, start: int) -> None:
    """Cards only."""


def _train(values: np.ndarray, game: Round, seat: int, start: int) -> None:
    others = [other for other in range(game.seats) if other != seat]
    values[CARDS * 2 + seat] = 1
    values[109:114] = (
        game.points[seat] / 65,
        game.turn / 50,
        sum(len(game.hands[other]) for other in others) / len(others) / HAND_SIZE,
        game.coins[seat] / start,
        sum(game.coins[other] for other in others) / len(others) / start,
    )
    _phase(values, 114, game)


def _duel(values: np.ndarray, game: Round, seat: int, start: int) -> None:
    other = 1 - seat
    values[CARDS * 2 + seat] = 1
    values[106:113] = (
        game.points[seat] / 65,
        game.turn / TURN_LIMIT,
        len(game.pile) / CARDS,
        len(game.hands[seat]) / HAND_SIZE,
        len(game.hands[other]) / HAND_SIZE,
        game.coins[seat] / start,
        game.coins[other] / start,
    )
    _phase(values, 113, game)


def _championship(values: np.ndarray, game: Round, seat: int, start: int) -> None:
    values[104:107] = (len(game.deck) / CARDS, game.turn / TURN_LIMIT, game.coins[seat] / start)
    values[107 : 107 + game.seats] = [coins / start for coins in game.coins]
    values[110] = 0
    _phase(values, 110, game)
    values[113:117] = (
        game.points[seat] / 65,
        len(game.hands[seat]) / HAND_SIZE,
        len(game.pile) / CARDS,
        game.number / 1024,
    )


def _revised(values: np.ndarray, game: Round, seat: int, start: int) -> None:
    values[CARDS * 2 + seat] = 1
    values[108 : 108 + game.seats] = [len(hand) / HAND_SIZE for hand in game.hands]
    values[112:116] = 1
    values[116:119] = (game.points[seat] / 65, game.turn / TURN_LIMIT, len(game.pile) / CARDS)
    _phase(values, 120, game)


def _phase(values: np.ndarray, start: int, game: Round) -> None:
    if game.phase != Phase.OVER:
        values[start + game.phase] = 1


_LAYOUTS: dict[str, Callable[[np.ndarray, Round, int, int], None]] = {
    "e104": _nothing,
    "e117_train": _train,
    "e117_duel": _duel,
    "e117_championship": _championship,
    "e128": _revised,
}
