"""Data that crosses role borders and holds no tensor: tasks, actions, rollouts, scores, trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from orchestrator.errors import Failure

if TYPE_CHECKING:
    import numpy as np


class Speaks(StrEnum):
    """What observations are made of."""

    MESSAGES = "messages"
    FEATURES = "features"


class Split(StrEnum):
    """Which tasks: those trained on, or those held out for evaluation."""

    TRAIN = "train"
    EVAL = "eval"


class Couples(StrEnum):
    """What a micro-batch must keep together for an objective's terms to be right."""

    ROWS = "rows"  # each row's terms stand alone
    GROUPS = "groups"  # siblings must share a micro-batch


class Finish(StrEnum):
    """Why an action ended."""

    STOP = "stop"  # the policy ended it (a terminator token; always so for feature policies)
    LENGTH = "length"  # the token limit cut it


class Stop(StrEnum):
    """Why a rollout ended."""

    DONE = "done"  # the environment said so
    TURNS = "turns"  # the limit on turns was reached: the collector's, or the environment's (Feedback.truncated)
    ERROR = "error"  # the episode raised; see Rollout.error


class Message(TypedDict):
    """One chat message; plain JSON."""

    role: str  # system, user, assistant or tool
    content: str


Messages: TypeAlias = tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A numeric observation with the actions that are legal in it."""

    values: np.ndarray  # [D] float32
    legal: np.ndarray  # [A] bool


Observation: TypeAlias = Messages | Features


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a policy draws its actions. ``temperature=0`` is greedy; ``top_k=0`` and ``top_p=1`` truncate nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64  # per action


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to do."""

    id: str
    prompt: Observation | None = None
    reference: str | None = None  # the right answer as text, where there is one
    demonstration: tuple[str, ...] | None = None  # the texts of a good play's actions, one per turn
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a policy did in one turn."""

    tokens: tuple[int, ...]  # sampled ids, terminator included; one index for feature policies
    logprobs: tuple[float, ...]  # nats, weights that acted, at the sampling temperature, before truncation
    text: str | None = None
    finish: Finish = Finish.STOP
    sampled_logprobs: tuple[float, ...] | None = None  # after top-p and top-k, where those truncated anything
    context_tokens: int = 0  # tokens the policy read to choose it, for the cost counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What the environment answers to one action. ``observation`` may be None once ``done``."""

    observation: Observation | None
    reward: float
    done: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False  # with done: cut off, not finished; ``observation`` is where more would have followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action, what it was based on and what the environment paid for it."""

    observation: Observation
    action: Action
    reward: float = 0.0
    step: int | None = None  # the environment's step; None: the turn's place in the rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One agent's play of one task. A failed rollout is data: ``error`` says what happened."""

    task_id: str
    index: int  # place among the siblings
    seed: int
    turns: tuple[Turn, ...]
    stop: Stop = Stop.DONE
    weights_version: int = 0
    error: Failure | None = None  # made of a text where it is given as one
    metrics: Mapping[str, float] = field(default_factory=dict)  # the episode's own, last value of each name
    sampling: Sampling = field(default_factory=Sampling)
    agent: str | None = None  # which agent of a shared world
    demonstration: bool = False  # played from the task's demonstration, not by the policy
    cut_at: Observation | None = None  # what came next when the play was cut off (stop is TURNS), for a critic to value

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", Failure.from_json(self.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good one rollout was."""

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)  # unweighted, by reward name
    against: tuple[float, ...] | None = None  # P(beats sibling j), in group order, 0.5 against itself
    turns: tuple[float, ...] | None = None  # value by turn, sums to value; None: all of it on the last turn


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """Siblings: the rollouts of one task, scored together."""

    task: Task
    rollouts: tuple[Rollout, ...]
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What a sampler asks for: so many plays of a task."""

    task: Task
    count: int
    sampling: Sampling | None = None  # None: the experiment's
    seed: int | None = None  # None: the collector derives one from the trial's seed, the step and the task
    demonstrate: bool = False  # play the task's demonstration through the real episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a policy has seen of one episode so far: ``len(observations) == len(actions) + 1``."""

    episode: str  # equal for the agents of one shared world
    agent: str | None
    observations: Sequence[Observation]  # this and the next may be live: valid during the call only
    actions: Sequence[Action]
    seed: int  # of this action; equal contexts with equal seeds act alike, whatever else is in the call


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial ended; written to ``result.json``."""

    trial: str
    arm: str
    seed: int
    status: str  # done, stopped (early), failed
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # the last row of each name
    error: Failure | None = None  # made of a text, or of plain JSON, where it is given as one
    summary: Mapping[str, Any] = field(default_factory=dict)  # a plugin's own results, plain JSON

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", Failure.from_json(self.error))
