"""Tournaments: who sits where in which deal, what each round left, and how to go on after a crash."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.api import Speaks, Split, Task, write_json

from .config import AnyPlayer, NetworkConfig, RandomConfig, SearchConfig, StyleConfig, TournamentConfig
from .game import Round
from .players import STYLES, Player, RandomPlayer, StylePlayer, play

if TYPE_CHECKING:
    from orchestrator.api import ComponentSource

TIMED_EVERY = 16  # one round in so many is played with a clock on every decision

STATE, ROUNDS = "tournament.json", "rounds.jsonl"


class RoundRecord(NamedTuple):
    """One round; everything by player, in the order of the options, wherever the player sat."""

    deal: int
    winner: int
    caller: int
    success: bool
    ending: str
    turns: int
    reshuffles: int
    seats: list[int]  # seat of each player
    points: list[int]  # at the end
    deltas: list[int]
    discarded: list[int]
    asked_again: list[int]  # cards a style would discard from its final hand; the rule script reports these


class TournamentEnvironment:
    """The options of a tournament in the place of an environment; ``run_trial`` plays it."""

    speaks = Speaks.FEATURES

    def __init__(self, config: TournamentConfig):
        self.config = config

    def tasks(self, split: Split) -> list[Task]:
        """None: a tournament trains nobody."""
        return []

    def start(self, task: Task, seed: int) -> Any:
        """Refuse.

        :raises TypeError: always; a tournament has no episodes
        """
        raise TypeError(
            "environment 'dhumbal_tournament' has no episodes; set `procedure: dhumbal_tournament`, "
            "or train with the environment 'dhumbal'"
        )


class Tournament:
    """The whole state of a tournament; advances round by round, the same from a saved state as from none."""

    def __init__(self, config: TournamentConfig, seed: int, registry: ComponentSource | None = None):
        self.config = config
        self.seed = config.seed if config.seed is not None else seed
        self.names = tuple(spec.name or spec.player for spec in config.players)
        self.players: list[Player] = [make_player(spec, len(self.names), registry) for spec in config.players]
        self.seatings = _seatings(len(self.names), config.seating)
        self.coins = [config.start_coins] * len(self.names)
        self.round = 0
        self.rng = Random(self.seed)
        self.seconds = [0.0] * len(self.names)
        self.decisions = [0] * len(self.names)

    @property
    def total(self) -> int:
        """Rounds to be played, if nobody goes broke."""
        return self.config.deals * len(self.seatings)

    @property
    def over(self) -> bool:
        """Whether nothing is left to play."""
        if self.round >= self.total:
            return True
        return self.config.stop_when_broke and sum(coins > 0 for coins in self.coins) < 2

    def play_round(self) -> RoundRecord:
        """Play the next round and carry the coins over."""
        deal, index = divmod(self.round, len(self.seatings))
        seating = self.seatings[index]  # player by seat
        if len(self.seatings) > 1:
            # Every seating of a deal starts from the same stream, hence from the same cards.
            self.rng.seed(f"dhumbal {self.seed} {deal}")
        players: list[Player] = [self.players[player] for player in seating]
        clocks = [_Clocked(player) for player in players] if self.round % TIMED_EVERY == 0 else []
        game = Round([self.coins[player] for player in seating], self.rng, self.config.pickup, self.round)
        play(game, clocks or players)
        for player, clock in zip(seating, clocks, strict=bool(clocks)):
            self.seconds[player] += clock.seconds
            self.decisions[player] += clock.decisions
        seats = [0] * len(seating)
        for seat, player in enumerate(seating):
            seats[player] = seat
            self.coins[player] += game.deltas[seat]
        self.round += 1
        return RoundRecord(
            deal=deal,
            winner=seating[game.winner],
            caller=seating[game.caller],
            success=game.success,
            ending=str(game.ending),
            turns=game.turn,
            reshuffles=game.reshuffles,
            seats=seats,
            points=[game.points[seat] for seat in seats],
            deltas=[game.deltas[seat] for seat in seats],
            discarded=[game.discarded[seat] for seat in seats],
            asked_again=[_ask_again(player, game, seat) for player, seat in zip(self.players, seats, strict=True)],
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything the next round depends on, as plain JSON."""
        version, words, gauss = self.rng.getstate()
        return {
            "round": self.round,
            "coins": self.coins,
            "rng": [version, list(words), gauss],
            "seconds": self.seconds,
            "decisions": self.decisions,
            "factors": [getattr(player, "risk_factor", None) for player in self.players],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        version, words, gauss = state["rng"]
        self.rng.setstate((version, tuple(words), gauss))
        self.round, self.coins = state["round"], list(state["coins"])
        self.seconds, self.decisions = list(state["seconds"]), list(state["decisions"])
        for player, factor in zip(self.players, state["factors"], strict=True):
            if factor is not None and isinstance(player, StylePlayer):
                player.risk_factor = factor


class Chronicle:
    """The files of a tournament: a line per round, and the state after the last saved one.

    The state names the length of the rounds' file it belongs to; whatever a crash left beyond is cut off.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def restore(self, tournament: Tournament) -> None:
        """Bring a fresh tournament to the saved state, if there is one.

        :raises ValueError: the state belongs to other options or the rounds' file is shorter than the state says
        """
        rounds = self.directory / ROUNDS
        try:
            saved = json.loads((self.directory / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            rounds.write_bytes(b"")
            return
        if saved["options"] != _options(tournament):
            raise ValueError(
                f"{self.directory / STATE} was written with other options; resume with the run's own experiment file, "
                f"or start a new run"
            )
        if not rounds.exists() or rounds.stat().st_size < saved["bytes"]:
            raise ValueError(f"{rounds} is shorter than {STATE} says; delete both to play the tournament again")
        os.truncate(rounds, saved["bytes"])
        tournament.load_state_dict(saved["state"])

    def save(self, tournament: Tournament, records: Sequence[RoundRecord]) -> None:
        """Append rounds, then replace the state."""
        with (self.directory / ROUNDS).open("ab") as file:
            for record in records:
                file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            length = file.tell()
        saved = {"options": _options(tournament), "bytes": length, "state": tournament.state_dict()}
        write_json(self.directory / STATE, saved)

    def rounds(self) -> list[RoundRecord]:
        """Read every saved round."""
        with (self.directory / ROUNDS).open(encoding="utf-8") as file:
            return [RoundRecord(*json.loads(line)) for line in file]


def play_tournament(
    tournament: Tournament, chronicle: Chronicle, on_chunk: Callable[[int, Sequence[RoundRecord]], None]
) -> list[RoundRecord]:
    """Play what is left, saving every chunk.

    :param on_chunk: called with (rounds played, all records so far) after each save
    :returns: every round, earlier processes' included
    """
    chronicle.restore(tournament)
    records = chronicle.rounds()
    while not tournament.over:
        chunk: list[RoundRecord] = []
        while not tournament.over and len(chunk) < tournament.config.chunk:
            chunk.append(tournament.play_round())
        chronicle.save(tournament, chunk)
        records += chunk
        on_chunk(tournament.round, records)
    return records


def make_player(spec: AnyPlayer, seats: int, registry: ComponentSource | None = None) -> Player:
    """Build a player from its options.

    :param seats: how many play; what a network sees depends on it
    :raises ValueError: a network without a registry to build its policy from
    """
    if isinstance(spec, RandomConfig):
        return RandomPlayer()
    if isinstance(spec, StyleConfig):
        player = STYLES[spec.player]()
        for number in ("pick_base", "value_weight", "risk_factor"):
            if getattr(spec, number) is not None:
                setattr(player, number, getattr(spec, number))
        return player
    if isinstance(spec, SearchConfig):
        from .search import Defect, Ismcts, Mcts

        shared: dict[str, Any] = {
            "iterations": spec.iterations,
            "exploration": spec.exploration,
            "seconds": spec.seconds,
            "defects": tuple(Defect(defect) for defect in spec.defects),
        }
        return Mcts(trees=spec.trees, **shared) if spec.player == "mcts" else Ismcts(**shared)
    if isinstance(spec, NetworkConfig):
        if registry is None:
            raise ValueError("a network player needs a registry to build its policy from; pass load_registry()")
        from .network_player import NetworkPlayer

        return NetworkPlayer(spec, seats, registry)
    raise TypeError(f"{type(spec).__name__} describes no player")


class _Clocked:
    """A player with a clock on every decision."""

    def __init__(self, player: Player):
        self.name, self._player = player.name, player
        self.seconds, self.decisions = 0.0, 0

    def call(self, game: Round) -> bool:
        return self._timed(self._player.call, game)

    def discard(self, game: Round) -> Sequence[int]:
        return self._timed(self._player.discard, game)

    def draw(self, game: Round) -> bool:
        return self._timed(self._player.draw, game)

    def _timed(self, decide: Callable[[Round], Any], game: Round) -> Any:
        began = time.perf_counter()
        decision = decide(game)
        self.seconds += time.perf_counter() - began
        self.decisions += 1
        return decision


def _ask_again(player: Player, game: Round, seat: int) -> int:
    if not isinstance(player, StylePlayer) or not game.hands[seat]:
        return 0
    return len(player.choose_discard(game.hands[seat], game.points[seat]))


def _seatings(players: int, kind: str) -> list[tuple[int, ...]]:
    """List the seatings of a deal: the player of each seat."""
    order = tuple(range(players))
    if kind == "all":
        return list(itertools.permutations(order))
    if kind == "cyclic":
        return [order[-shift:] + order[:-shift] if shift else order for shift in range(players)]
    return [order]


def _options(tournament: Tournament) -> dict[str, Any]:
    """What a saved state must agree with; how many deals may grow."""
    return tournament.config.model_dump(mode="json", exclude={"deals", "chunk", "resamples", "published"}) | {
        "seed": tournament.seed
    }
