"""Policies that play what a test tells them, with real weights and real statistics, so that training runs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.contract.batch import Column, Packed
from orchestrator.contract.types import Action, Context, Features, Finish, Observation, Rollout, Sampling, Speaks

END = 256
"""Token that ends an action; the others are bytes."""
_START = 257


class ScriptedPolicy:
    """Speaks messages: says the given texts, byte by byte, and knows how likely they were.

    Its model predicts each token from the one before it. Training moves the model, never the script.
    """

    speaks = Speaks.MESSAGES

    def __init__(self, script: Sequence[str] | Callable[[Context], str] = ("a",), *, seed: int = 0):
        """Write the script.

        :param script: texts, played in turn and over again in the order contexts arrive; or a function of the
            context, for plays that must not depend on that order
        :param seed: of the model's initial weights
        """
        self._script, self._played = script, 0
        self.module: nn.Module = _Bigram(seed)

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> Sequence[Action]:
        return [self._act(context, chosen) for context, chosen in zip(contexts, sampling, strict=True)]

    def encode(self, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
        return [(*text.encode(), END) for text in texts]

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        return _pack([_words(rollout) for rollout in rollouts], [rollout.sampling for rollout in rollouts])

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        tokens = inputs["tokens"]
        before = torch.cat([torch.full_like(tokens[:, :1], _START), tokens[:, :-1]], dim=1)
        logits, values = self.module(before)
        return statistics(logits / _divisor(inputs["temperature"]), tokens, wanted, values)

    def refresh(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"played": self._played}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._played = state["played"]

    def _act(self, context: Context, sampling: Sampling) -> Action:
        if callable(self._script):
            text = self._script(context)
        else:
            text = self._script[self._played % len(self._script)]
            self._played += 1
        tokens = self.encode([text])[0]
        finish = Finish.STOP
        if len(tokens) > sampling.max_tokens:
            tokens, finish = tokens[: sampling.max_tokens], Finish.LENGTH
            text = bytes(tokens).decode(errors="replace")
        seen = _context_tokens(context.observations, context.actions)
        before = torch.tensor([[seen[-1] if seen else _START, *tokens[:-1]]])
        with torch.no_grad():
            logits = self.module(before)[0] / _divisor(torch.tensor([sampling.temperature]))
            logprobs = statistics(logits, torch.tensor([tokens]), frozenset({Column.LOGPROB}))[Column.LOGPROB]
        return Action(
            tokens=tuple(tokens),
            logprobs=tuple(logprobs[0].tolist()),
            text=text,
            finish=finish,
            context_tokens=len(seen),
        )


class ScriptedChoices:
    """Speaks features: takes the given actions; a linear model says how likely they were."""

    speaks = Speaks.FEATURES

    def __init__(self, script: Sequence[int] | Callable[[Context], int] = (0,), *, seed: int = 0):
        """Write the script.

        :param script: actions, taken in turn and over again in the order contexts arrive; or a function of the context
        :param seed: of the model's initial weights
        """
        self._script, self._played, self._seed = script, 0, seed
        self.module: nn.Module = nn.Identity()  # sized by `prepare`

    def prepare(self, environment: Any, wanted: frozenset[Column]) -> None:
        self.module = _Linear(environment.features, environment.actions, self._seed)

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> Sequence[Action]:
        return [self._act(context, chosen) for context, chosen in zip(contexts, sampling, strict=True)]

    def encode(self, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
        return [(int(text),) for text in texts]

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        if not isinstance(self.module, _Linear):
            raise ValueError("ScriptedChoices has no model yet; call prepare(environment, wanted) first")
        rows = []
        for rollout in rollouts:
            steps = [
                (t.observation, t.action.tokens[0], True, place if t.step is None else t.step, t.action.logprobs[0])
                for place, t in enumerate(rollout.turns)
            ]
            if rollout.cut_at is not None:
                steps.append((rollout.cut_at, 0, False, -1, 0.0))
            rows.append(steps)
        packed = _pad_rows([[(step[1], *step[2:]) for step in steps] for steps in rows])
        width, (size, choices) = packed["tokens"].shape[1], self.module.sizes
        features = torch.zeros(len(rows), width, size)
        legal = torch.ones(len(rows), width, choices, dtype=torch.bool)
        for row, steps in enumerate(rows):
            for t, (observation, *_) in enumerate(steps):
                assert isinstance(observation, Features)
                features[row, t] = torch.from_numpy(np.asarray(observation.values, dtype=np.float32))
                legal[row, t] = torch.from_numpy(np.asarray(observation.legal, dtype=bool))
        temperature = torch.tensor([rollout.sampling.temperature for rollout in rollouts])
        return Packed(
            inputs={"features": features, "actions": packed["tokens"], "legal": legal, "temperature": temperature},
            mask=packed["mask"],
            behaviour_logprobs=packed["logprobs"],
            turn=packed["turn"],
            bootstrap=_bootstrap(packed["tokens"], rows, [rollout.cut_at is not None for rollout in rollouts]),
        )

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        logits, values = self.module(inputs["features"])
        logits = torch.where(inputs["legal"], logits / _divisor(inputs["temperature"]), -1e9)
        return statistics(logits, inputs["actions"], wanted, values)

    def refresh(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"played": self._played}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._played = state["played"]

    def _act(self, context: Context, sampling: Sampling) -> Action:
        if callable(self._script):
            choice = self._script(context)
        else:
            choice = self._script[self._played % len(self._script)]
            self._played += 1
        seen = context.observations[-1]
        assert isinstance(seen, Features)
        if not seen.legal[choice]:
            raise ValueError(f"the script takes action {choice}, legal are {np.flatnonzero(seen.legal).tolist()}")
        inputs = {
            "features": torch.from_numpy(np.asarray(seen.values, dtype=np.float32))[None, None],
            "legal": torch.from_numpy(np.asarray(seen.legal, dtype=bool))[None, None],
            "actions": torch.tensor([[choice]]),
            "temperature": torch.tensor([sampling.temperature]),
        }
        with torch.no_grad():
            logprob = self.columns(inputs, frozenset({Column.LOGPROB}))[Column.LOGPROB].item()
        return Action(tokens=(int(choice),), logprobs=(logprob,))


def statistics(
    logits: Tensor, tokens: Tensor, wanted: Iterable[Column], values: Tensor | None = None
) -> dict[Column, Tensor]:
    """Every statistic a policy may owe, from its logits, the plain way.

    :param logits: [B, T, V]; ``logits[b, t]`` predicts token t
    :param tokens: [B, T] int64
    :param values: [B, T], where ``Column.VALUE`` is wanted
    """
    logprobs = logits.log_softmax(-1)
    found: dict[Column, Tensor] = {}
    for column in wanted:
        if column == Column.LOGPROB:
            found[column] = logprobs.gather(-1, tokens[..., None]).squeeze(-1)
        elif column == Column.ENTROPY:
            found[column] = -(logprobs.exp() * logprobs).sum(-1)
        elif column == Column.VOCAB_MEAN_LOGPROB:
            found[column] = logprobs.mean(-1)
        elif column == Column.LOGITS:
            found[column] = logits
        elif values is not None:
            found[column] = values
    return found


class _Bigram(nn.Module):
    def __init__(self, seed: int, hidden: int = 8):
        super().__init__()
        self.embedding = nn.Embedding(_START + 1, hidden)
        self.head = nn.Linear(hidden, END + 1)
        self.critic = nn.Linear(hidden, 1)
        _seed_weights(self, seed)

    def forward(self, before: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.embedding(before).tanh()
        return self.head(hidden), self.critic(hidden).squeeze(-1)


class _Linear(nn.Module):
    def __init__(self, features: int, actions: int, seed: int):
        super().__init__()
        self.sizes = features, actions
        self.head = nn.Linear(features, actions)
        self.critic = nn.Linear(features, 1)
        _seed_weights(self, seed)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(features), self.critic(features).squeeze(-1)


def _seed_weights(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))


def _divisor(temperature: Tensor) -> Tensor:
    return torch.where(temperature > 0, temperature, 1.0)[:, None, None]


def _context_tokens(observations: Sequence[Observation], actions: Sequence[Action]) -> list[int]:
    tokens: list[int] = []
    for place, observation in enumerate(observations):
        tokens += _read(observation)
        if place < len(actions):
            tokens += actions[place].tokens
    return tokens


def _read(observation: Observation) -> list[int]:
    assert not isinstance(observation, Features)
    return [byte for message in observation for byte in f"{message['role']}: {message['content']}\n".encode()]


def _words(rollout: Rollout) -> list[tuple[int, bool, int, float]]:
    """(token, chosen, turn, log-probability) of a rollout, and one closing token where it was cut off."""
    row: list[tuple[int, bool, int, float]] = []
    for place, turn in enumerate(rollout.turns):
        row += [(token, False, -1, 0.0) for token in _read(turn.observation)]
        step = place if turn.step is None else turn.step
        row += [(t, True, step, p) for t, p in zip(turn.action.tokens, turn.action.logprobs, strict=True)]
    if rollout.cut_at is not None:
        row += [(token, False, -1, 0.0) for token in (*_read(rollout.cut_at), END)]
    return row


def _pack(rows: list[list[tuple[int, bool, int, float]]], sampling: Sequence[Sampling]) -> Packed:
    packed = _pad_rows(rows)
    # A row was cut off when something stands behind its last chosen token.
    cut = [bool(row) and not row[-1][1] for row in rows]
    return Packed(
        inputs={
            "tokens": packed["tokens"],
            "attention_mask": packed["used"],
            "temperature": torch.tensor([chosen.temperature for chosen in sampling]),
        },
        mask=packed["mask"],
        behaviour_logprobs=packed["logprobs"],
        turn=packed["turn"],
        bootstrap=_bootstrap(packed["tokens"], rows, cut),
    )


def _pad_rows(rows: list[list[tuple[int, bool, int, float]]]) -> dict[str, Tensor]:
    width = max((len(row) for row in rows), default=0)
    padded = [[*row, *[(0, False, -1, 0.0)] * (width - len(row))] for row in rows]

    def field(place: int, dtype: torch.dtype) -> Tensor:
        return torch.tensor([[item[place] for item in row] for row in padded], dtype=dtype).reshape(len(rows), width)

    used = torch.tensor([[t < len(row) for t in range(width)] for row in rows]).reshape(len(rows), width)
    return {
        "tokens": field(0, torch.long),
        "mask": field(1, torch.bool),
        "turn": field(2, torch.long),
        "logprobs": field(3, torch.float32),
        "used": used,
    }


def _bootstrap(like: Tensor, rows: Sequence[Sequence[Any]], cut: Sequence[bool]) -> Tensor | None:
    if not any(cut):
        return None
    marked = torch.zeros(like.shape, dtype=torch.bool)
    for row, (steps, was_cut) in enumerate(zip(rows, cut, strict=True)):
        if was_cut:
            marked[row, len(steps) - 1] = True
    return marked
