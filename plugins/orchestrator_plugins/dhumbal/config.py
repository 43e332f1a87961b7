"""Options of the game, the players, the tournament and the learners."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.api import PluginConfig

from .game import Pickup

Encoding = Literal["e104", "e117_train", "e117_duel", "e117_championship", "e128"]
Head = Literal["sets", "phases", "flat128"]
LearnerDefect = Literal["call_first", "modulo", "endless_rounds"]


class PlayerConfig(PluginConfig):
    """One player; what it is, and the name it carries in tables."""

    name: str | None = Field(None, min_length=1, description="in tables; null: what it is")


class RandomConfig(PlayerConfig):
    """The random player."""

    player: Literal["random"] = "random"


class StyleConfig(PlayerConfig):
    """A rule style; its numbers may be overridden for an ablation (sec. 3.2.1)."""

    player: Literal["aggressive", "conservative", "balanced", "opportunistic"]
    pick_base: int | None = Field(None, ge=0, le=13, description="most points of a pile card worth taking; P")
    value_weight: float | None = Field(None, ge=0, description="weight of the points discarded; h")
    risk_factor: float | None = Field(None, gt=0, description="scales every discard's score; k")


class SearchConfig(PlayerConfig):
    """A tree search over guesses at the hidden cards."""

    player: Literal["mcts", "ismcts"]
    iterations: int = Field(100, ge=1, description="playouts per decision; the study: 100")
    exploration: float = Field(math.sqrt(2), ge=0, description="weight of the confidence bound; the study: sqrt 2")
    seconds: float | None = Field(
        None, gt=0, description="ends a decision's search early; play is then not reproducible. The study: 1.0 or 1.5"
    )
    trees: int = Field(5, ge=1, description="guesses per decision, mcts only")
    defects: tuple[Literal["ace_opponents", "legality_share"], ...] = Field(
        (), description="behaviour of the released searchers to keep"
    )


class NetworkConfig(PlayerConfig):
    """A trained policy, or an untrained one where no checkpoint is given."""

    player: Literal["network"]
    checkpoint: Path | None = Field(None, description="directory with model.safetensors; null: initial weights")
    policy: dict[str, Any] = Field(
        {"use": "mlp", "hidden": (128, 64), "activation": "relu"}, description="policy component the weights belong to"
    )
    encoding: Encoding = Field("e128", description="features it was trained on")
    head: Head = Field("sets", description="action head it was trained with")
    defects: tuple[LearnerDefect, ...] = Field((), description="behaviour of the released championship to keep")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest action")
    seed: int = Field(0, ge=0, description="of initial weights")


def _player(value: Any) -> Any:
    return {"player": value} if isinstance(value, str) else value


_Spelt = Annotated[RandomConfig | StyleConfig | SearchConfig | NetworkConfig, Field(discriminator="player")]
AnyPlayer = Annotated[_Spelt, BeforeValidator(_player, json_schema_input_type=str | _Spelt)]


class TournamentConfig(PluginConfig):
    """Players, deals and seats of a tournament; needs `procedure: dhumbal_tournament`."""

    players: tuple[AnyPlayer, ...] = Field(
        ("aggressive", "conservative", "balanced", "opportunistic"),
        validate_default=True,
        description="two to five, as names or as {player: name, ...options}; seat order when seats are fixed",
    )
    deals: int = Field(1024, ge=1, description="shuffles; each is one round, or one round per seating (sec. 3.7)")
    seating: Literal["fixed", "cyclic", "all"] = Field(
        "fixed",
        description="fixed: the players' order, as published; cyclic: each deal once per rotation; all: N! times",
    )
    seed: int | None = Field(None, ge=0, description="of all randomness; null: the trial's")
    pickup: Pickup = Field(
        Pickup.OWN_TOP, description="pile card on offer: the one just discarded, as released, or the one beneath"
    )
    start_coins: int = Field(10_000, description="balance of every player at the start (sec. 3.1)")
    stop_when_broke: bool = Field(
        False,
        description="end when fewer than two balances are above 0, as the rule script does; else they go negative",
    )
    chunk: int = Field(64, ge=1, description="rounds between saves of the state")
    resamples: int = Field(5_000, ge=100, description="of the paired bootstrap")
    published: Literal["none", "rules", "search", "championship"] = Field(
        "none", description="the study's table to print beside the result"
    )

    @model_validator(mode="after")
    def _seats(self) -> TournamentConfig:
        if not 2 <= len(self.players) <= 5:
            raise ValueError(f"players: {len(self.players)} given; Dhumbal is played by 2 to 5")
        names = [player.name or player.player for player in self.players]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"players: {', '.join(twice)} named more than once; give each its own `name`")
        return self


class DhumbalConfig(PluginConfig):
    """A card game with hidden hands: one learner against rule, random or search players."""

    opponents: tuple[AnyPlayer, ...] = Field(
        (
            {"player": "random", "name": "random 1"},
            {"player": "random", "name": "random 2"},
            {"player": "random", "name": "random 3"},
        ),
        validate_default=True,
        min_length=1,
        max_length=4,
        description="everybody but the learner; networks cannot play here",
    )
    encoding: Encoding = Field("e128", description="what the learner sees; the released code's revision of 2026")
    head: Head = Field(
        "sets",
        description="sets: one output for each set of cards (319); phases: one for each place in the list of legal "
        "discards (20); flat128: as released, every phase from index 0 on",
    )
    reward: Literal["shaped", "coins", "released"] = Field(
        "shaped",
        description="shaped: coins / 20 at the end, points the hand loses / 13 on the way, gains charged; coins: the end "
        "only; released: the training code of Oct 2025, where draws cost 0.1 whatever they bring",
    )
    defects: tuple[LearnerDefect, ...] = Field(
        (),
        description="released behaviour to keep: call_first (index 0 calls), modulo (any index is wrapped into the legal "
        "ones), endless_rounds (the critic looks beyond the end of a round)",
    )
    pickup: Pickup = Field(
        Pickup.OWN_TOP, description="pile card on offer: the one just discarded, as released, or the one beneath"
    )
    seed: int = Field(0, ge=0, description="of the deals")

    @model_validator(mode="after")
    def _fits(self) -> DhumbalConfig:
        if any(player.player == "network" for player in self.opponents):
            raise ValueError(
                "opponents: a network cannot be an opponent in training; choose rule, random or search players"
            )
        seats, most = len(self.opponents) + 1, {"e117_duel": 2, "e117_championship": 4, "e128": 4}.get(self.encoding, 5)
        if seats > most:
            raise ValueError(
                f"encoding: {self.encoding} names at most {most} seats, {seats} are given; take e117_train"
            )
        if "modulo" in self.defects and self.head != "flat128":
            raise ValueError("defects: modulo belongs to the head flat128; set `head: flat128`")
        return self


class ReplayConfig(PluginConfig):
    """Plays each task once and trains on remembered rollouts."""

    capacity: int = Field(2000, ge=1, description="decisions remembered; the oldest rollouts go first (released: 2000)")
    rollouts: int = Field(32, ge=1, description="remembered rollouts trained on per step, drawn without replacement")
    temperature_start: float = Field(
        10.0, gt=0, description="of the softmax over action values that explores; high is near uniform, as epsilon 1"
    )
    temperature_end: float = Field(
        0.05, gt=0, description="where it stops falling; low is near greedy, as epsilon 0.01"
    )
    decay: float = Field(0.995, gt=0, le=1, description="factor per step; the study's factor of epsilon per update")


class QLearningConfig(PluginConfig):
    """Logits as action values, the reference policy as target network."""

    gamma: float = Field(0.99, ge=0, le=1, description="discount per decision; the study: 0.99")
    double: bool = Field(
        False, description="let the trained network choose the next action the target network values (arXiv:1509.06461)"
    )
    huber: float | None = Field(
        None, gt=0, description="errors beyond this count linearly; null: squared error, as released"
    )
