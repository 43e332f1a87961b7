"""What environments, policies, rewards and samplers hand over, looked at where they were called.

Each function raises an ordinary error that says what was given, what was expected and what to do; the boundary around the
call adds whose fault it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.contract.batch import Packed
from orchestrator.contract.metrics import LARGEST_METRIC, number
from orchestrator.contract.types import (
    Action,
    Context,
    Features,
    Feedback,
    RolloutGroup,
    RolloutRequest,
    Score,
    Speaks,
    Task,
)

LARGEST_REWARD = 1e16
"""Rewards are squared and added up in float32, where the square of a larger one would drown or overflow."""
_ABOVE_CERTAINTY = 1e-5  # a log-probability may lie so far above 0 for rounding
_ROLES = ("system", "user", "assistant", "tool")


# --- environments ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Language:
    """What an environment says it speaks; ``sizes`` are the numbers of features and actions."""

    speaks: Speaks | None
    sizes: tuple[int, int] | None = None

    @classmethod
    def of(cls, environment: Any) -> Language:
        """Read the declaration off an environment."""
        speaks = getattr(environment, "speaks", None)
        sizes = (getattr(environment, "features", None), getattr(environment, "actions", None))
        known = speaks == Speaks.FEATURES and all(isinstance(size, int) for size in sizes)
        return cls(speaks, sizes if known else None)  # type: ignore[arg-type]  # known: they are ints

    def problem(self, observation: Any) -> str | None:
        """What is wrong with an observation; None: nothing."""
        if self.speaks == Speaks.FEATURES:
            return self._features_problem(observation)
        return messages_problem(observation) if self.speaks == Speaks.MESSAGES else None

    def _features_problem(self, seen: Any) -> str | None:
        if not isinstance(seen, Features):
            return f"the environment speaks features, but an observation is {_short(seen)}; expected Features(...)"
        values, legal = seen.values, seen.legal
        if not (isinstance(values, np.ndarray) and isinstance(legal, np.ndarray)) or legal.dtype.char != "?":
            return "Features hold arrays: values of float32 and legal of bool; use numpy.asarray"
        if values.ndim != 1 or legal.ndim != 1 or (self.sizes and (len(values), len(legal)) != self.sizes):
            want = "one dimension each" if self.sizes is None else f"[{self.sizes[0]}] and [{self.sizes[1]}]"
            return f"values have shape {list(values.shape)} and legal {list(legal.shape)}; expected {want}"
        if b"\x01" not in legal.tobytes():
            return "an observation leaves no legal action; end the play with done=True"
        if values.dtype.char != "f":
            return f"values are {values.dtype}; expected float32: values.astype('float32')"
        # The dot product is finite wherever the values are, but for large ones, and costs a fraction of a look at each.
        if not math.isfinite(values.dot(values)) and not np.isfinite(values).all():
            return f"values of an observation are not finite: {values.tolist()[:8]}"
        return None


def messages_problem(seen: Any) -> str | None:
    """What keeps an observation from being chat messages; None: nothing."""
    if isinstance(seen, str):
        return (
            f"an observation is the text {_short(seen)}; expected a tuple of messages: "
            "({'role': 'user', 'content': text},)"
        )
    if not isinstance(seen, tuple):
        more = "; give tuple(...) of the new messages" if isinstance(seen, list) else ""
        return f"an observation is {_short(seen)}; expected a tuple of messages, each with 'role' and 'content'{more}"
    if not seen:
        return "an observation holds no message; say something, or end the play with done=True"
    for message in seen:
        if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
            return f"an observation holds {_short(message)}; expected a message with 'role' and 'content'"
        if message["role"] not in _ROLES or not isinstance(message["content"], str):
            return (
                f"an observation holds the message {_short(message)}; expected a role of {', '.join(_ROLES)} and a text "
                "as content"
            )
    return None


def sent_back(first: Any, said: Sequence[str | None], seen: Any) -> str | None:
    """Whether an observation is the conversation so far and not just what is new; the complaint, or None.

    :param first: what the episode showed first
    :param said: the texts of the policy's own actions so far
    :param seen: the observation in question, messages or a list of them
    """
    if not said or not isinstance(seen, tuple | list) or not all(isinstance(m, Mapping) for m in seen):
        return None
    told = [m.get("content") for m in seen if m.get("role") == "assistant"]
    own = {text.strip() for text in said if text and text.strip()}
    echoed = any(isinstance(content, str) and content.strip() in own for content in told)
    opening, again = _from_environment(first), _from_environment(seen)
    repeated = bool(opening) and again[: len(opening)] == opening and (len(again) > len(opening) or bool(told))
    if not (echoed or repeated):
        return None
    return (
        f"an observation of {len(seen)} messages sends the conversation back: it "
        + ("holds the policy's own answer" if echoed else "begins with the messages that the episode showed first")
        + "; return the new messages alone, as in ({'role': 'user', 'content': reply},). The core keeps the conversation, "
        "and a policy would be trained on doubled history"
    )


def _from_environment(messages: Any) -> list[tuple[Any, Any]]:
    if not isinstance(messages, tuple | list):
        return []
    rows = [(m.get("role"), m.get("content")) for m in messages if isinstance(m, Mapping)]
    return [row for row in rows if row[0] not in ("system", "assistant")]


def expect_feedback(answer: Any, *, several: bool) -> Feedback:
    """Check what one agent is answered.

    :param several: of a world of several agents, where one that is not done may wait without an observation
    :raises ValueError: it is no sound ``Feedback``
    """
    if not isinstance(answer, Feedback):
        raise ValueError(
            f"step() returned {_short(answer)}; expected Feedback(observation=..., reward=..., done=...)"
            + (" for each agent" if several else "")
        )
    for name, flag in (("done", answer.done), ("truncated", answer.truncated)):
        if flag is not True and flag is not False and not isinstance(flag, np.bool_):
            raise ValueError(f"Feedback.{name} is {_short(flag)}; expected True or False")
    if answer.observation is None and not several and not answer.done:
        raise ValueError(
            "step() shows nothing, and the play is not done: a policy cannot go on; give the next observation, or done=True"
        )
    return answer


def expect_metrics(given: Any) -> Mapping[str, float]:
    """An episode's metrics as plain finite floats.

    :raises ValueError: a name is no text, or a value no finite number within ``LARGEST_METRIC``
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"Feedback.metrics is {_short(given)}; expected a mapping of names to numbers")
    found = {}
    for name, value in given.items():
        if type(value) is not float or not -LARGEST_METRIC <= value <= LARGEST_METRIC or type(name) is not str:
            if not isinstance(name, str) or not name:
                raise ValueError(f"Feedback.metrics names a metric {name!r}; expected a text")
            value = number(value, f"Feedback.metrics: {name!r}", largest=LARGEST_METRIC)
        found[name] = value
    return found


def expect_tasks(tasks: Sequence[Any], split: str) -> None:
    """Check that an environment gave tasks.

    :raises ValueError: something is no ``Task``
    """
    for task in tasks:
        if not isinstance(task, Task):
            raise ValueError(f"tasks({split}) gave {_short(task)}; expected Task(id=..., ...)")


# --- policies -------------------------------------------------------------------------------------------------


def expect_actions(actions: Any, contexts: Sequence[Context], speaks: Speaks | None) -> Sequence[Action]:
    """Check that a policy gave one sound action for each context.

    :raises ValueError: their number is wrong, or one of them could not be trained on
    """
    if not isinstance(actions, list | tuple | Sequence) or len(actions) != len(contexts):
        count = f"{len(actions)} actions" if isinstance(actions, Sequence) else f"a {type(actions).__name__}"
        raise ValueError(f"act returned {count} for {len(contexts)} contexts; expected a list with one action each")
    for action, context in zip(actions, contexts, strict=True):
        problem = _action_problem(action, context, speaks)
        if problem:
            raise ValueError(problem)
    return actions


def _action_problem(action: Any, context: Context, speaks: Speaks | None) -> str | None:
    if not isinstance(action, Action):
        return f"act gave {_short(action)}; expected Action(tokens=..., logprobs=...)"
    tokens, logprobs = action.tokens, action.logprobs
    if len(tokens) != len(logprobs):
        return f"an action has {len(tokens)} tokens and {len(logprobs)} log-probabilities; expected one for each token"
    if not tokens:  # of several agents, some may have nothing to decide
        return None if context.agent is not None else "an action has no tokens; nothing could be trained on"
    if not (math.isfinite(sum(logprobs)) and max(logprobs) <= _ABOVE_CERTAINTY):
        return (
            f"an action has log-probabilities {_short(list(logprobs))}; expected finite natural logarithms, at most 0"
        )
    if action.sampled_logprobs is not None and len(action.sampled_logprobs) != len(tokens):
        return f"an action has {len(tokens)} tokens and {len(action.sampled_logprobs)} sampled_logprobs"
    if speaks == Speaks.MESSAGES and not isinstance(action.text, str):
        return f"an action's text is {_short(action.text)}; an environment that speaks messages reads it: give the text"
    if speaks == Speaks.FEATURES and context.agent is None:
        seen = context.observations[-1]
        assert isinstance(seen, Features)  # the environment's observations were looked at
        if not (0 <= tokens[0] < len(seen.legal) and seen.legal[tokens[0]]):
            return f"act chose action {tokens[0]}, legal are {np.flatnonzero(seen.legal).tolist()}; mask the others out"
    return None


def expect_encoded(encoded: Any, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
    """Check the tokens of texts.

    :raises ValueError: their number is wrong, or a text has none
    """
    if not isinstance(encoded, Sequence) or len(encoded) != len(texts) or not all(len(tokens) for tokens in encoded):
        raise ValueError(
            f"encode gave {_short(encoded)} for {len(texts)} texts; expected the tokens of each, terminator included"
        )
    return encoded


def expect_packed(packed: Any, rollouts: int) -> Packed:
    """Check what a policy made of rollouts, a row each.

    :raises ValueError: something of it has another shape or type, or trains on a log-probability that is none
    """
    if not isinstance(packed, Packed):
        raise ValueError(f"pack gave {_short(packed)}; expected Packed(inputs=..., mask=..., ...)")
    mask = packed.mask
    if mask.dim() != 2 or mask.shape[0] != rollouts:
        raise ValueError(
            f"pack gave {mask.shape[0]} rows for {rollouts} rollouts; expected mask [B, T] with a row each"
        )
    for name, bound in (("mask", "bool"), ("behaviour_logprobs", "float"), ("turn", "int64"), ("bootstrap", "bool")):
        tensor = getattr(packed, name)
        if tensor is None and name == "bootstrap":
            continue
        if tensor.shape != mask.shape or bound not in str(tensor.dtype):
            raise ValueError(
                f"pack gave {name} of shape {list(tensor.shape)} and {tensor.dtype}; expected {list(mask.shape)} and {bound}"
            )
    for name, tensor in packed.inputs.items():
        if tensor.shape[:1] != mask.shape[:1]:
            raise ValueError(f"pack gave the input {name!r} {list(tensor.shape)}; expected {rollouts} rows first")
    if not bool((packed.behaviour_logprobs.isfinite() | ~mask).all()):
        raise ValueError("pack gave behaviour_logprobs that are not finite where the policy chose tokens")
    if bool(((packed.turn >= 0) != mask).any()):
        raise ValueError(
            "pack gave turn numbers that are not 0 or more exactly on the policy's tokens, and -1 elsewhere"
        )
    return packed


# --- rewards --------------------------------------------------------------------------------------------------


def expect_scores(scores: Any, group: RolloutGroup, name: str) -> tuple[Score, ...]:
    """Check what a reward gave to a group; the scores with plain floats.

    :raises ValueError: their number is wrong, one is no ``Score``, or holds what cannot be learnt from
    """
    hint = "score(group) returns one Score(value=...) per rollout, in order"
    if isinstance(scores, str | Mapping) or not isinstance(scores, Iterable):
        raise ValueError(f"reward {name!r} returned {_short(scores)}; {hint}")
    found = tuple(scores)
    if len(found) != len(group.rollouts):
        raise ValueError(f"reward {name!r} gave {len(found)} scores for {len(group.rollouts)} rollouts; {hint}")
    return tuple(
        _sound_score(
            score, len(group.rollouts), len(rollout.turns), f"reward {name!r}, rollout {place} of task {id_!r}"
        )
        for id_ in (group.task.id,)
        for place, (score, rollout) in enumerate(zip(found, group.rollouts, strict=True))
    )


def _sound_score(score: Any, siblings: int, turns: int, where: str) -> Score:
    if not isinstance(score, Score):
        remedy = f"Score(value={score})" if isinstance(score, int | float) else "Score(value=...)"
        raise ValueError(f"{where}: the score is {_short(score)}; expected {remedy}")
    value = number(score.value, f"{where}: the value", largest=LARGEST_REWARD)
    parts = {str(n): number(v, f"{where}: part {n!r}", largest=LARGEST_METRIC) for n, v in score.parts.items()}
    against, by_turn = score.against, score.turns
    if against is not None:
        if len(against) != siblings:
            raise ValueError(f"{where}: against has {len(against)} chances for {siblings} siblings, itself included")
        against = tuple(number(chance, f"{where}: against") for chance in against)
        if min(against) < -1e-6 or max(against) > 1 + 1e-6:
            raise ValueError(f"{where}: against is {against}; expected chances in [0, 1]")
    if by_turn is not None:
        if len(by_turn) != turns:
            raise ValueError(f"{where}: turns has {len(by_turn)} values for {turns} turns; expected one for each")
        by_turn = tuple(number(v, f"{where}: a turn's value", largest=LARGEST_REWARD) for v in by_turn)
        if abs(math.fsum(by_turn) - value) > 1e-4 * (1 + math.fsum(map(abs, by_turn))):
            raise ValueError(f"{where}: turns sum to {math.fsum(by_turn):g}, the value is {value:g}; they must agree")
    return Score(value=value, parts=parts, against=against, turns=by_turn)


# --- samplers -------------------------------------------------------------------------------------------------


def expect_requests(requests: Any) -> Sequence[RolloutRequest]:
    """Check what a sampler asks for.

    :raises ValueError: something is no sound request
    """
    if isinstance(requests, RolloutRequest) or not isinstance(requests, Iterable):
        raise ValueError(
            f"collect was given {_short(requests)}; expected a list of RolloutRequest(task=..., count=...)"
        )
    found = list(requests)
    for request in found:
        if not isinstance(request, RolloutRequest):
            raise ValueError(f"collect was given {_short(request)}; expected RolloutRequest(task=..., count=...)")
        count = request.count
        if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 0:
            raise ValueError(f"a request for task {request.task.id!r} asks for {count!r} rollouts; expected a count")
    return found


def expect_groups(groups: Any) -> list[RolloutGroup]:
    """Check what a sampler returned to train on; it may be rollouts of earlier steps, or of tasks of its own.

    :raises ValueError: something is no group of sound siblings of one task
    """
    if isinstance(groups, RolloutGroup) or not isinstance(groups, Iterable):
        raise ValueError(f"sample() returned {_short(groups)}; expected a list of RolloutGroup")
    found = list(groups)
    for group in found:
        if not isinstance(group, RolloutGroup):
            raise ValueError(f"sample() returned {_short(group)} among the groups; expected RolloutGroup")
        where = f"sample() returned a group of task {group.task.id!r}"
        for rollout in group.rollouts:
            if rollout.task_id != group.task.id:
                raise ValueError(f"{where} with a rollout of task {rollout.task_id!r}; siblings play one task")
            if rollout.error is not None:
                raise ValueError(f"{where} with a rollout that failed; return those that collect gave")
        for score in group.scores:
            if not isinstance(score, Score) or not -LARGEST_REWARD <= score.value <= LARGEST_REWARD:
                raise ValueError(
                    f"{where} with the score {_short(score)}; expected Score(value=...) of a finite number"
                )
    return found


def _short(value: Any) -> str:
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return text if isinstance(value, str) or value is None else f"the {type(value).__name__} {text}"
