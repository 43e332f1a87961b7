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
    """What observations are made of.

    :cvar MESSAGES: chat messages, ``Messages``; actions are text
    :cvar FEATURES: numbers, ``Features``; an action is the index of one
    """

    MESSAGES = "messages"
    FEATURES = "features"


class Split(StrEnum):
    """Which tasks.

    :cvar TRAIN: those trained on
    :cvar EVAL: those held out for evaluation
    """

    TRAIN = "train"
    EVAL = "eval"


class Couples(StrEnum):
    """What a micro-batch must keep together for an objective's terms to be right.

    :cvar ROWS: nothing: each row's terms stand alone
    :cvar GROUPS: siblings must share a micro-batch
    """

    ROWS = "rows"
    GROUPS = "groups"


class Finish(StrEnum):
    """Why an action ended.

    :cvar STOP: the policy ended it (a terminator token; always so for feature policies)
    :cvar LENGTH: the token limit cut it
    """

    STOP = "stop"
    LENGTH = "length"


class Stop(StrEnum):
    """Why a rollout ended.

    :cvar DONE: the environment said so
    :cvar TURNS: the limit on turns was reached: the collector's, or the environment's (``Feedback.truncated``)
    :cvar ERROR: the episode raised; see ``Rollout.error``
    """

    DONE = "done"
    TURNS = "turns"
    ERROR = "error"


class Message(TypedDict):
    """One chat message; plain JSON.

    :ivar role: ``system``, ``user``, ``assistant`` or ``tool``
    :ivar content: its text
    """

    role: str
    content: str


Messages: TypeAlias = tuple[Message, ...]
"""Chat messages in order: the new ones only, never a conversation sent back whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """A numeric observation with the actions that are legal in it.

    :ivar values: [D] float32, D as the environment's ``features`` says
    :ivar legal: [A] bool, True for actions that may be taken, A as the environment's ``actions`` says
    """

    values: np.ndarray
    legal: np.ndarray


Observation: TypeAlias = Messages | Features
"""What a policy sees: chat messages or numbers, as the environment and the policy both say in ``speaks``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a policy draws its actions.

    :ivar temperature: logits are divided by it; 0 is greedy
    :ivar top_p: mass of the smallest nucleus drawn from, in (0, 1]; 1 truncates nothing
    :ivar top_k: most likely tokens drawn from; 0 truncates nothing
    :ivar max_tokens: tokens per action, terminator included
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One thing to do.

    :ivar id: unique among the environment's tasks, the same in every run
    :ivar prompt: what the policy sees first, where that is known before the play; None: the episode says it
    :ivar reference: the right answer as text, where there is one
    :ivar demonstration: the texts of a good play's actions, one per turn, where there is one
    :ivar metadata: the environment's own, plain JSON
    """

    id: str
    prompt: Observation | None = None
    reference: str | None = None
    demonstration: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a policy did in one turn.

    :ivar tokens: sampled ids, terminator included; one index for feature policies. Never a re-tokenisation of ``text``
    :ivar logprobs: one per token, nats, of the weights that acted, at the sampling temperature, before truncation
    :ivar text: the action as text, terminator left out; None for feature policies
    :ivar finish: why it ended
    :ivar sampled_logprobs: one per token, nats, after top-p and top-k; None: those truncated nothing
    :ivar context_tokens: tokens the policy read to choose it, for the cost counters
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str | None = None
    finish: Finish = Finish.STOP
    sampled_logprobs: tuple[float, ...] | None = None
    context_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What the environment answers to one action.

    :ivar observation: what the policy sees next; may be None once ``done``
    :ivar reward: for this action, in points of the score
    :ivar done: whether the play is over
    :ivar metrics: the episode's own numbers by name, such as ``correct``: 1 where the task was solved, else 0
    :ivar truncated: with ``done``: cut off, not finished; ``observation`` is where more would have followed
    """

    observation: Observation | None
    reward: float
    done: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One action, what it was based on and what the environment paid for it.

    :ivar observation: what was new to the policy before it acted
    :ivar action: what it did
    :ivar reward: the environment's, in points of the score
    :ivar step: the environment's step, 0-based: siblings and agents with equal steps acted at the same moment; None: the
        turn's place in the rollout
    """

    observation: Observation
    action: Action
    reward: float = 0.0
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One agent's play of one task. A failed rollout is data: ``error`` says what happened.

    :ivar task_id: the task's ``id``
    :ivar index: place among the siblings, 0-based
    :ivar seed: of the play; the environment and the policy's draws follow from it
    :ivar turns: what was played, in order
    :ivar stop: why it ended
    :ivar weights_version: optimiser steps the trial had made when the play began
    :ivar error: what the episode raised; made of a text where it is given as one
    :ivar metrics: the episode's own, last value of each name
    :ivar sampling: how its actions were drawn
    :ivar agent: which agent of a shared world; None: the only one
    :ivar demonstration: whether it was played from the task's demonstration, not by the policy
    :ivar cut_at: what came next when the play was cut off (``stop`` is ``TURNS``), for a critic to value
    """

    task_id: str
    index: int
    seed: int
    turns: tuple[Turn, ...]
    stop: Stop = Stop.DONE
    weights_version: int = 0
    error: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    agent: str | None = None
    demonstration: bool = False
    cut_at: Observation | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", Failure.from_json(self.error))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good one rollout was.

    :ivar value: the number that is learnt from: the rewards' weighted sum
    :ivar parts: by reward name, unweighted
    :ivar against: probability of beating each sibling, in [0, 1], in group order, 0.5 against itself; win rates average
        it, itself included; None: nobody compared them
    :ivar turns: value by turn, sums to ``value``; None: all of it on the last turn
    """

    value: float
    parts: Mapping[str, float] = field(default_factory=dict)
    against: tuple[float, ...] | None = None
    turns: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """Siblings: the rollouts of one task, scored together.

    :ivar task: what they played
    :ivar rollouts: G plays
    :ivar scores: one per rollout, in order; empty before scoring
    """

    task: Task
    rollouts: tuple[Rollout, ...]
    scores: tuple[Score, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What a sampler asks for: so many plays of a task.

    :ivar task: what to play
    :ivar count: how many plays
    :ivar sampling: how to draw actions, and the temperature of their log-probabilities; None: the experiment's, of
        demonstrations 1
    :ivar seed: stands in place of the trial's, from which, with the step, the task and the place, each play's seed
        follows; None: the trial's
    :ivar demonstrate: play the task's demonstration through the real episode instead of asking the policy
    """

    task: Task
    count: int
    sampling: Sampling | None = None
    seed: int | None = None
    demonstrate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a policy has seen of one episode so far: ``len(observations) == len(actions) + 1``.

    :ivar episode: equal for the agents of one shared world
    :ivar agent: which agent of a shared world; None: the only one
    :ivar observations: in order, the last is to be answered; this and ``actions`` may be live: valid during the call only
    :ivar actions: the agent's own, in order
    :ivar seed: of this action; equal contexts with equal seeds act alike, whatever else is in the call
    """

    episode: str
    agent: str | None
    observations: Sequence[Observation]
    actions: Sequence[Action]
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """How a trial ended; written to ``result.json``.

    :ivar trial: the trial's id
    :ivar arm: its arm
    :ivar seed: its seed
    :ivar status: ``done``, ``stopped`` (early) or ``failed``
    :ivar step: last step measured, 1-based; 0: none
    :ivar metrics: last value of each name
    :ivar error: why it failed; made of a text, or of plain JSON, where it is given as one
    :ivar summary: a plugin's own results, plain JSON
    """

    trial: str
    arm: str
    seed: int
    status: str
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: Failure | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", Failure.from_json(self.error))
