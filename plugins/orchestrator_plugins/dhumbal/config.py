"""Options of the game, the players, the tournament and the learners."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.api import PluginConfig

from .game import Pickup

Encoding = Literal["e104", "e117_train", "e117_duel", "e117_championship", "e128"]
Head = Literal["phases", "flat128"]
LearnerDefect = Literal["call_first", "double_index", "modulo", "endless_rounds"]


class PlayerConfig(BaseModel):
    """One player; what it is, and the name it carries in tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")
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
    checkpoint: str | None = Field(None, description="directory with model.safetensors; null: initial weights")
    policy: dict[str, Any] = Field(
        {"use": "mlp", "hidden": (128, 64), "activation": "relu"}, description="policy component the weights belong to"
    )
    encoding: Encoding = Field("e128", description="features it was trained on")
    head: Head = Field("phases", description="action head it was trained with")
    defects: tuple[LearnerDefect, ...] = Field((), description="behaviour of the released championship to keep")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest action")
    seed: int = Field(0, ge=0, description="of initial weights")


def _player(value: Any) -> Any:
    return {"player": value} if isinstance(value, str) else value


AnyPlayer = Annotated[
    Annotated[RandomConfig | StyleConfig | SearchConfig | NetworkConfig, Field(discriminator="player")],
    BeforeValidator(_player),
]


class TournamentConfig(PluginConfig):
    """Options of the environment ``dhumbal_tournament``: who plays whom, how often, and how seats are dealt out."""

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
