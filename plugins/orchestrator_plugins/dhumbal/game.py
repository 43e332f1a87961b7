"""One round of Dhumbal as a state machine: call, discard, draw, next seat, until somebody is settled with.

The engine asks nobody: players (``players.py``), the search (``search.py``) and the training environment
(``environment.py``) all move through the same three methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from random import Random

from .rules import CALL_LIMIT, CARDS, HAND_SIZE, POINTS, TURN_LIMIT, is_legal_discard, lowest_seat, settle


class Pickup(StrEnum):
    """Which card of the discard pile a player may take."""

    OWN_TOP = "own_top"  # the card it has just discarded, as in the released code
    PREVIOUS_TOP = "previous_top"  # the top before its discard, the usual rule of the game's family


class Phase(IntEnum):
    """What the seat to act decides now."""

    CALL = 0  # only asked when the hand allows a call
    DISCARD = 1
    DRAW = 2
    OVER = 3


class Ending(StrEnum):
    """Why a round ended."""

    CALL = "call"
    EMPTY = "empty"  # the caller discarded its last card
    TURNS = "turns"  # forced: the limit on turns was reached
    DECK = "deck"  # forced: nothing left to draw


class Round:
    """One round in progress. Slots, since a tournament makes millions of moves.

    ``hands`` hold card ids by seat in the order they came, ``points`` their sums; the last cards of ``deck`` and ``pile`` are
    their tops. Once ``phase`` is ``OVER``, ``caller``, ``winner``, ``deltas`` and ``ending`` are set.
    """

    __slots__ = (
        "caller",
        "coins",
        "deck",
        "deltas",
        "discarded",
        "ending",
        "hands",
        "number",
        "phase",
        "pickup",
        "pile",
        "points",
        "previous_top",
        "reshuffles",
        "rng",
        "seat",
        "turn",
        "winner",
    )

    def __init__(self, coins: list[int], rng: Random, pickup: Pickup = Pickup.OWN_TOP, number: int = 0):
        """Shuffle and deal.

        :param coins: balance by seat before the round; two to five seats. Read by players, never changed here
        :param rng: shuffles here, at each reshuffle, and whatever players draw from it
        :param number: of the round in its tournament, from 0
        """
        if not 2 <= len(coins) <= 5:
            raise ValueError(f"{len(coins)} seats; Dhumbal is played by 2 to 5")
        deck = list(range(CARDS))
        rng.shuffle(deck)
        seats = len(coins)
        dealt = seats * HAND_SIZE
        # Cards are dealt one at a time from the end of the shuffled deck, in seat order.
        order = deck[: -dealt - 1 : -1]
        self.hands = [order[seat::seats] for seat in range(seats)]
        self.points = [sum([POINTS[card] for card in hand]) for hand in self.hands]
        self.pile = [deck[-dealt - 1]]
        del deck[-dealt - 1 :]
        self.deck = deck
        self.coins = coins
        self.rng = rng
        self.pickup = pickup
        self.number = number
        self.previous_top = -1
        self.discarded = [0] * seats
        self.reshuffles = 0
        self.turn = 1
        self.seat = 0
        self.phase = Phase.CALL if self.points[0] <= CALL_LIMIT else Phase.DISCARD
        self.caller = self.winner = -1
        self.deltas: list[int] = []
        self.ending: Ending | None = None

    @property
    def seats(self) -> int:
        """How many play."""
        return len(self.hands)

    @property
    def success(self) -> bool:
        """Whether the caller won."""
        return self.caller == self.winner

    @property
    def offered(self) -> int:
        """The pile card the seat may take while drawing."""
        return self.pile[-1] if self.pickup is Pickup.OWN_TOP else self.previous_top

    def call(self, wanted: bool) -> None:
        """Call Jhyap, which ends the round, or go on to the discard.

        :raises ValueError: when it is not the time to call
        """
        if self.phase != Phase.CALL:
            raise ValueError(f"seat {self.seat} is to {self.phase.name.lower()}, not to call")
        if wanted:
            self._end(self.seat, Ending.CALL)
        else:
            self.phase = Phase.DISCARD

    def discard(self, cards: Sequence[int]) -> None:
        """Discard cards of the seat's hand onto the pile in the order given; an empty hand ends the round.

        An illegal choice is replaced by the highest single card, the first of equals.

        :raises ValueError: when it is not the time to discard
        """
        if self.phase != Phase.DISCARD:
            raise ValueError(f"seat {self.seat} is to {self.phase.name.lower()}, not to discard")
        hand = self.hands[self.seat]
        if (len(cards) != 1 or cards[0] not in hand) and not is_legal_discard(cards, hand):
            cards = (max(hand, key=POINTS.__getitem__),)
        pile = self.pile
        self.previous_top = pile[-1]
        points = self.points[self.seat]
        for card in cards:
            hand.remove(card)
            points -= POINTS[card]
        pile += cards
        self.points[self.seat] = points
        self.discarded[self.seat] += len(cards)
        if hand:
            self.phase = Phase.DRAW
        else:
            self._end(self.seat, Ending.EMPTY)

    def draw(self, from_pile: bool) -> None:
        """Draw the offered card of the pile or the top of the deck; then the next seat's turn begins.

        An empty deck is refilled from the pile beneath its top; where that is nothing, the round ends.

        :raises ValueError: when it is not the time to draw
        """
        if self.phase != Phase.DRAW:
            raise ValueError(f"seat {self.seat} is to {self.phase.name.lower()}, not to draw")
        pile, deck, seat = self.pile, self.deck, self.seat
        if from_pile:
            # The previous top lies beneath the cards just discarded.
            card = pile.pop() if self.pickup is Pickup.OWN_TOP else pile.pop(pile.index(self.previous_top))
        else:
            if not deck:
                if len(pile) < 2:
                    self._end(lowest_seat(self.points), Ending.DECK)
                    return
                top = pile.pop()
                self.rng.shuffle(pile)
                deck += pile
                pile[:] = (top,)
                self.reshuffles += 1
            card = deck.pop()
        self.hands[seat].append(card)
        self.points[seat] += POINTS[card]
        if self.turn == TURN_LIMIT:
            self._end(lowest_seat(self.points), Ending.TURNS)
            return
        self.turn += 1
        self.seat = seat = (seat + 1) % len(self.hands)
        self.phase = Phase.CALL if self.points[seat] <= CALL_LIMIT else Phase.DISCARD

    def copy(self, rng: Random | None = None) -> Round:
        """Copy the state; moves on the copy leave the original as it is.

        :param rng: of the copy; None: the original's
        """
        twin = Round.__new__(Round)
        twin.hands = [hand[:] for hand in self.hands]
        twin.points = self.points[:]
        twin.deck = self.deck[:]
        twin.pile = self.pile[:]
        twin.discarded = self.discarded[:]
        twin.coins = self.coins
        twin.rng = rng or self.rng
        twin.pickup = self.pickup
        twin.number = self.number
        twin.previous_top = self.previous_top
        twin.reshuffles = self.reshuffles
        twin.turn = self.turn
        twin.seat = self.seat
        twin.phase = self.phase
        twin.caller = self.caller
        twin.winner = self.winner
        twin.deltas = self.deltas
        twin.ending = self.ending
        return twin

    def _end(self, caller: int, ending: Ending) -> None:
        self.caller = caller
        self.winner, self.deltas = settle(self.points, caller)
        self.ending = ending
        self.phase = Phase.OVER
