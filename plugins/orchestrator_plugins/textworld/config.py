"""Options of the TextWorld environment."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

from pydantic import Field, model_validator

from orchestrator.api import PluginConfig


class Kind(StrEnum):
    """Which generator makes the games."""

    CUSTOM = "custom"  # tw-make custom: a world of rooms and things with one quest
    SIMPLE = "simple"  # tw-make tw-simple: always the same house, another dish to prepare


class Theme(StrEnum):
    """What the things of a custom game are called."""

    HOUSE = "house"  # kitchens, latchkeys, Henderson's box; a thousand words
    BASIC = "basic"  # room2, P-box, thing6; a few dozen words


class Goal(StrEnum):
    """How much the game's objective gives away."""

    DETAILED = "detailed"  # every step of the solution in other words
    BRIEF = "brief"  # custom: the last step alone; simple: the dish that is missing
    NONE = "none"


class Density(StrEnum):
    """How often a simple game pays a point."""

    SPARSE = "sparse"  # once, at the end
    BALANCED = "balanced"  # three or four times
    DENSE = "dense"  # for almost every step


class Prompt(StrEnum):
    """How a game is put to the policy."""

    PLAIN = "plain"  # objective and situation
    INSTRUCT = "instruct"  # a sentence on what to do, and labels


class Cut(StrEnum):
    """What an action does that the token limit cut off."""

    ENDS = "ends"  # the play is over
    GOES_ON = "goes_on"  # a turn is lost


class Training(StrEnum):
    """Which games the split TRAIN is made of."""

    TRAINING = "training"
    DEMONSTRATIONS = "demonstrations"


class Evaluation(StrEnum):
    """Which games the split EVAL is made of."""

    VALIDATION = "validation"
    TEST = "test"


RANGES = {  # of the generator's seeds, first and last; no two overlap
    Evaluation.TEST: (1, 10_000),
    Training.TRAINING: (30_001, 40_000),
    Evaluation.VALIDATION: (40_001, 50_000),
    Training.DEMONSTRATIONS: (50_001, 60_000),
}
SHIFT = 100_000  # between the ranges of two values of `seed`


class TextWorldConfig(PluginConfig):
    """Options of the environment ``textworld``."""

    kind: Kind = Field(Kind.CUSTOM, description="custom: generated worlds; simple: the game tw-simple")
    world_size: int = Field(2, ge=1, le=64, description="custom: rooms; paper: w, sec. 4")
    objects: int = Field(3, ge=1, le=128, description="custom: things, at least; paper: o, sec. 4")
    quest_length: int = Field(4, ge=1, le=32, description="custom: steps of the quest, at most; paper: q, sec. 4")
    exact_length: bool = Field(False, description="custom: leave out games whose solution is shorter than quest_length")
    theme: Theme = Field(Theme.HOUSE, description="custom: house has a large vocabulary, basic a small one")
    density: Density = Field(Density.DENSE, description="simple: how often a point is paid; paper: sparse, dense 1, 2")
    goal: Goal = Field(Goal.DETAILED, description="how much the objective gives away")
    max_turns: int | None = Field(
        None,
        ge=1,
        description="turns of a play, after which it is lost; null: three times quest_length (custom), 24 (simple); "
        "paper: sec. 4",
    )
    prompt: Prompt = Field(Prompt.INSTRUCT, description="plain for models built here, instruct for real ones")
    cut_action: Cut = Field(
        Cut.ENDS, description="an action that the token limit cut off ends the play, or loses a turn"
    )
    train_on: Training = Field(Training.TRAINING, description="games of the split TRAIN")
    train_tasks: int | None = Field(None, ge=1, description="distinct games of the split TRAIN; null: the whole range")
    evaluate_on: Evaluation = Field(Evaluation.VALIDATION, description="games of the split EVAL")
    seed: int = Field(0, ge=0, le=10_000, description="moves all ranges of games; nothing else in a game is random")
    cache: Path | None = Field(
        None, description="folder of generated games; null: rl-orchestrator/textworld in the user's cache folder"
    )
    processes: int | None = Field(
        None, ge=1, le=256, description="that make and play games; null: as many as there are processors, at most 4"
    )
    step_seconds: float = Field(10.0, gt=0, description="a game that takes longer for one command has failed")
    make_seconds: float = Field(120.0, gt=0, description="a game that takes longer to be generated has failed")

    @model_validator(mode="after")
    def _belongs_to_kind(self) -> TextWorldConfig:
        foreign = {
            Kind.CUSTOM: {"density"},
            Kind.SIMPLE: {"world_size", "objects", "quest_length", "exact_length", "theme"},
        }[self.kind] & self.model_fields_set
        if foreign:
            other = next(kind for kind in Kind if kind is not self.kind)
            raise ValueError(f"{', '.join(sorted(foreign))}: for kind {other} only, and kind is {self.kind}")
        if self.train_tasks is not None and self.train_tasks > len(seeds_of(self.train_on, self.seed)):
            raise ValueError(
                f"train_tasks {self.train_tasks}: there are {len(seeds_of(self.train_on, self.seed))} {self.train_on} games"
            )
        return self

    @property
    def level(self) -> str:
        """A short name of how hard the games are."""
        if self.kind is Kind.SIMPLE:
            return f"simple-{self.density}"
        return f"w{self.world_size}-o{self.objects}-q{self.quest_length}"

    @property
    def turns(self) -> int:
        """Turns of a play."""
        if self.max_turns is not None:
            return self.max_turns
        return 24 if self.kind is Kind.SIMPLE else 3 * self.quest_length

    def generator(self) -> dict[str, object]:
        """What decides, with a seed, which game is generated; plain JSON."""
        if self.kind is Kind.SIMPLE:
            return {"kind": "simple", "density": str(self.density), "goal": str(self.goal)}
        return {
            "kind": "custom",
            "rooms": self.world_size,
            "objects": self.objects,
            "quest_length": self.quest_length,
            "theme": str(self.theme),
            "goal": str(self.goal),
        }


def seeds_of(games: Training | Evaluation, seed: int) -> range:
    """The generator's seeds of one kind of games."""
    first, last = RANGES[games]
    return range(first + SHIFT * seed, last + SHIFT * seed + 1)


def default_cache() -> Path:
    """The user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "rl-orchestrator" / "textworld"


def default_processes() -> int:
    """As many as there are processors for this process, at most four."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
