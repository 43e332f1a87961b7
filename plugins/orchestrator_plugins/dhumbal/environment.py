"""The environment ``dhumbal``: a learner plays one round against fixed opponents, one decision a turn.

A task fixes the deal and the learner's seat, so siblings play the same cards; the seed of a play moves the opponents
and reshuffles. The metric ``correct`` says whether the learner won the round.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random

from orchestrator.api import Action, Features, Feedback, Speaks, Split, Task

from .config import DhumbalConfig
from .encodings import LENGTHS, choice, encode, head_size, legal_actions
from .game import Ending, Phase, Round
from .players import Player, act, decide
from .rules import PAYMENT_CAP, START_COINS
from .tournament import make_player

COINS = 20.0  # coins worth one unit of reward, next to points / 13 for shaping
CARD_POINTS = 13.0
RELEASED_DRAW = -0.1  # a draw's reward in the released code, which never takes back what the discard was paid


class DhumbalEnvironment:
    """Rounds for one learner; ``features`` and ``actions`` are what its network reads and writes."""

    speaks = Speaks.FEATURES

    def __init__(self, config: DhumbalConfig):
        self.config = config
        self.features = LENGTHS[config.encoding]
        self.actions = head_size(config.head)
        self.seats = len(config.opponents) + 1
        self.opponents: list[Player] = [make_player(spec, self.seats) for spec in config.opponents]

    def tasks(self, split: Split) -> Iterator[Task]:
        """Endless deals, the learner's seat rotating; the splits share none."""
        for index in itertools.count():
            yield Task(
                id=f"dhumbal/{split}/{index}",
                metadata={"deal": f"{self.config.seed}/{split}/{index}", "seat": index % self.seats},
            )

    def start(self, task: Task, seed: int) -> DhumbalEpisode:
        """Deal the task's cards; ``seed`` moves everybody but the learner."""
        return DhumbalEpisode(self, str(task.metadata["deal"]), int(task.metadata["seat"]), seed)


class DhumbalEpisode:
    """One round from the learner's chair."""

    def __init__(self, environment: DhumbalEnvironment, deal: str, seat: int, seed: int):
        self._config, self._seat = environment.config, seat
        self._deal, self._rng = deal, Random(seed)
        opponents = iter(environment.opponents)
        self._players = [None if chair == seat else next(opponents) for chair in range(environment.seats)]
        self._game = self._round(0)

    def open(self) -> Features:
        """Play to the learner's first decision.

        A round that ends before it has one is dealt anew, since there is nothing to learn in it.
        """
        for attempt in itertools.count(1):
            self._opponents_move()
            if self._game.phase != Phase.OVER:
                break
            self._game = self._round(attempt)
        return self._observe()

    def step(self, action: Action) -> Feedback:
        """Make the learner's move, then everybody else's up to its next decision.

        :raises ValueError: an action without meaning in this phase
        """
        game, seat = self._game, self._seat
        phase, points = game.phase, game.points[seat]
        decide(game, choice(game, action.tokens[0], self._config.head, self._config.defects))
        reward = self._shaping(phase, points - game.points[seat])
        self._opponents_move()
        if game.phase != Phase.OVER:
            return Feedback(observation=self._observe(), reward=reward, done=False)
        reward += self._outcome()
        metrics = {
            "correct": float(game.winner == seat),
            "dhumbal/coins": float(game.deltas[seat]),
            "dhumbal/called": float(game.caller == seat and game.ending == Ending.CALL),
            "dhumbal/turns": float(game.turn),
        }
        if "endless_rounds" in self._config.defects:
            # The released environments never say that a round is over, so their critics value what is not there.
            return Feedback(observation=self._observe(), reward=reward, done=True, metrics=metrics, truncated=True)
        return Feedback(observation=None, reward=reward, done=True, metrics=metrics)

    def close(self) -> None:
        """Nothing to free."""

    def _round(self, attempt: int) -> Round:
        deck = Random(f"dhumbal {self._deal} {attempt}")
        game = Round([START_COINS] * len(self._players), deck, self._config.pickup)
        game.rng = self._rng
        return game

    def _opponents_move(self) -> None:
        game = self._game
        while game.phase != Phase.OVER and game.seat != self._seat:
            player = self._players[game.seat]
            assert player is not None
            act(game, player)

    def _observe(self) -> Features:
        game = self._game
        if game.phase == Phase.OVER:
            over = encode(game, self._seat, self._config.encoding)
            legal = legal_actions(self._round(0), self._config.head, self._config.defects)
            return Features(values=over, legal=legal)
        return Features(
            values=encode(game, self._seat, self._config.encoding),
            legal=legal_actions(game, self._config.head, self._config.defects),
        )

    def _shaping(self, phase: Phase, dropped: int) -> float:
        """What the learner's own move is worth.

        :param dropped: points the hand lost by it, negative for a draw

        ``shaped`` is the change of a potential, so that nothing can be gained by going round in circles. Deviation: the
        study pays for discards and hardly charges for draws; a learner then prolongs the round rather than win it.
        """
        if self._config.reward == "coins" or phase == Phase.CALL:
            return 0.0
        if self._config.reward == "released" and phase == Phase.DRAW:
            return RELEASED_DRAW
        return dropped / CARD_POINTS

    def _outcome(self) -> float:
        """What the end of the round is worth to the learner."""
        game, seat = self._game, self._seat
        if self._config.reward != "released":
            return game.deltas[seat] / COINS
        paid = [min(points, PAYMENT_CAP) for points in game.points]
        others = sum(paid) - paid[seat]
        if game.caller == seat and game.ending == Ending.CALL:
            return float(others if game.winner == seat else -sum(paid))
        lowest = game.points[seat] == min(game.points)
        return float(others if lowest else -game.points[seat])
