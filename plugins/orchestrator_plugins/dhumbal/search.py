"""Search players: determinised MCTS and information-set MCTS over the real engine.

Both guess the hidden cards uniformly among those the player cannot see (opponents' hand sizes are public), play the
real rules to the end of the round, and back up to every node the coins won by the seat that moved into it.

Deviation: the study's searchers list the searching player's discards on opponents' turns too, value every opponent's
hand as aces, search the three phases apart and weigh a mean by its share of legality, which turns against a move when
the mean is negative. None of that is done here, unless ``defects`` asks for one of the two in ``Defect``.

Source: Cowling, Powley and Whitehouse 2012 (doi:10.1109/TCIAIG.2012.2200894), single-observer ISMCTS.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from enum import StrEnum
from random import Random
from typing import TypeAlias

from .game import Phase, Round
from .players import RandomPlayer, play
from .rules import CARDS, HAND_SIZE, legal_discards, settle

Move: TypeAlias = "int | tuple[int, ...]"  # a discard is its cards; the others follow

SILENT, CALL, DECK, PILE = range(4)

COINS = 100.0  # coins that count as 1 in a node's mean; a hand costs at most so much


class Defect(StrEnum):
    """What of the released searchers may be switched back on."""

    ACE_OPPONENTS = "ace_opponents"  # at the end of a playout opponents hold as many aces as cards
    LEGALITY_SHARE = "legality_share"  # moves are recommended by mean x share of guesses that allowed them


def moves(game: Round) -> Sequence[Move]:
    """List what the seat to act may do; empty once the round is over."""
    if game.phase == Phase.DISCARD:
        return legal_discards(game.hands[game.seat])
    if game.phase == Phase.CALL:
        return (SILENT, CALL)
    return (DECK, PILE) if game.phase == Phase.DRAW else ()


def apply(game: Round, move: Move) -> None:
    """Make a move."""
    if isinstance(move, tuple):
        game.discard(move)
    elif move <= CALL:
        game.call(move == CALL)
    else:
        game.draw(move == PILE)


def determinise(game: Round, seat: int, rng: Random) -> Round:
    """Copy a round with everything that ``seat`` cannot see dealt anew, uniformly.

    Kept: the own hand, the pile, hand sizes, the size of the deck.
    """
    seen = {*game.hands[seat], *game.pile}
    unseen = [card for card in range(CARDS) if card not in seen]
    rng.shuffle(unseen)
    twin = game.copy(rng)
    for other, hand in enumerate(game.hands):
        if other != seat:
            twin.hands[other] = [unseen.pop() for _ in hand]
    twin.deck = unseen
    twin.points = [sum(card % 13 + 1 for card in hand) for hand in twin.hands]
    return twin


class _Node:
    """A move and what is known of it. ``available`` counts the visits to the parent that allowed the move."""

    __slots__ = ("available", "children", "mover", "total", "visits")

    def __init__(self, mover: int):
        self.children: dict[Move, _Node] = {}
        self.mover = mover  # seat that made the move
        self.visits = 0
        self.available = 0
        self.total = 0.0


class SearchPlayer:
    """What both searchers share; ``name`` tells which is which.

    :param iterations: playouts per decision
    :param exploration: weight of the confidence bound, rewards in hundreds of coins
    :param seconds: stop a decision's search after so long; None: never, which keeps play reproducible
    :param defects: released behaviour to keep
    """

    name = "search"

    def __init__(
        self,
        *,
        iterations: int = 100,
        exploration: float = math.sqrt(2),
        seconds: float | None = None,
        defects: Collection[Defect] = (),
    ):
        self.iterations = iterations
        self.exploration = exploration
        self.seconds = seconds
        self.defects = frozenset(defects)
        self.playouts = 0  # in all decisions so far
        self._playout_players = (RandomPlayer(),) * 5

    def call(self, game: Round) -> bool:
        """Call when the search prefers it."""
        return self.choose(game) == CALL

    def discard(self, game: Round) -> Sequence[int]:
        """Discard what the search prefers."""
        cards = self.choose(game)
        assert isinstance(cards, tuple)
        return cards

    def draw(self, game: Round) -> bool:
        """Draw from where the search prefers."""
        return self.choose(game) == PILE

    def choose(self, game: Round) -> Move:
        """Search from the seat to act and recommend its most visited move."""
        legal = moves(game)
        if len(legal) == 1:
            return legal[0]
        votes: dict[Move, float] = dict.fromkeys(legal, 0.0)
        self._search(game, votes)
        return max(votes, key=votes.__getitem__)

    def _search(self, game: Round, votes: dict[Move, float]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no search")

    def _vote(self, root: _Node, votes: dict[Move, float]) -> None:
        for move, node in root.children.items():
            if Defect.LEGALITY_SHARE in self.defects:
                votes[move] += node.total / node.visits * (node.available / max(root.visits, 1))
            else:
                votes[move] += node.visits

    def _deadline(self) -> float:
        return math.inf if self.seconds is None else time.perf_counter() + self.seconds

    def _iterate(self, root: _Node, game: Round, seat: int) -> None:
        """Walk down the tree by the bound, add one node, play out at random, back up."""
        self.playouts += 1
        rng, exploration = game.rng, self.exploration
        node, path = root, [root]
        while game.phase != Phase.OVER:
            legal, children = moves(game), node.children
            untried = [move for move in legal if move not in children]
            for move in legal:
                if move in children:
                    children[move].available += 1
            if untried:
                move = untried[int(rng.random() * len(untried))]
                child = children[move] = _Node(game.seat)
                child.available = 1
                apply(game, move)
                path.append(child)
                break
            best = -math.inf
            for option in legal:
                child = children[option]
                bound = child.total / child.visits + exploration * math.sqrt(math.log(child.available) / child.visits)
                if bound > best:
                    best, move, node = bound, option, child
            apply(game, move)
            path.append(node)
        play(game, self._playout_players)
        deltas = game.deltas
        if Defect.ACE_OPPONENTS in self.defects:
            values = [min(len(hand), HAND_SIZE) for hand in game.hands]
            values[seat] = game.points[seat]
            deltas = settle(values, game.caller).deltas
        for visited in path:
            visited.visits += 1
            visited.total += deltas[visited.mover] / COINS


class Mcts(SearchPlayer):
    """Several guesses at the hidden cards, a tree of its own for each, visits added up at the root.

    :param trees: guesses per decision; the iterations are shared out among them
    """

    name = "mcts"

    def __init__(self, *, trees: int = 5, **options):
        super().__init__(**options)
        self.trees = trees

    def _search(self, game: Round, votes: dict[Move, float]) -> None:
        rng, seat, deadline = game.rng, game.seat, self._deadline()
        trees = min(self.trees, self.iterations)
        for tree in range(trees):
            root, guess = _Node(seat), determinise(game, seat, rng)
            for _ in range(tree, self.iterations, trees):
                self._iterate(root, guess.copy(), seat)
                if time.perf_counter() > deadline:
                    break
            self._vote(root, votes)
            if time.perf_counter() > deadline:
                return


class Ismcts(SearchPlayer):
    """One tree over information sets: the hidden cards are guessed anew in every iteration."""

    name = "ismcts"

    def _search(self, game: Round, votes: dict[Move, float]) -> None:
        rng, seat, deadline = game.rng, game.seat, self._deadline()
        root = _Node(seat)
        for _ in range(self.iterations):
            self._iterate(root, determinise(game, seat, rng), seat)
            if time.perf_counter() > deadline:
                break
        self._vote(root, votes)
