"""The policy ``mlp``: acts in one forward pass for all contexts, packs whole plays, computes columns.

Acting runs on a copy of the network that ``refresh`` brings up to date, so that a behaviour policy may lag behind.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.api import (
    Action,
    Column,
    ConfigError,
    Context,
    Environment,
    Features,
    Packed,
    Problem,
    Rollout,
    Sampling,
    Speaks,
)

from .config import MlpConfig
from .network import ActorCritic, build
from .sampling import ILLEGAL, draw, log_softmax, truncate


class MlpPolicy:
    """A perceptron that chooses one of a fixed number of actions."""

    speaks = Speaks.FEATURES

    def __init__(self, config: MlpConfig):
        self.config = config
        self.module: nn.Module = nn.Module()  # sized by prepare
        self._acting: ActorCritic | None = None
        self._actions = 0

    def prepare(self, environment: Environment, wanted: frozenset[Column]) -> None:
        """Size the network for the environment; a critic is made only when values are wanted.

        :raises ConfigError: the environment declares no sizes, or values are wanted and ``critic`` is none
        """
        declared: Any = environment  # sizes are its own, no part of the role
        try:
            features, self._actions = int(declared.features), int(declared.actions)
        except AttributeError as error:
            raise ConfigError(
                [
                    Problem(
                        "policy",
                        f"mlp needs an environment with the attributes `features` and `actions`; "
                        f"{type(environment).__name__} has no {error.name!r}",
                    )
                ]
            ) from None
        critic = self.config.critic if Column.VALUE in wanted else None
        if critic == "none":
            raise ConfigError(
                [Problem("policy.critic", "a component of this experiment needs values; set it to head or separate")]
            )
        with torch.random.fork_rng(devices=[], enabled=self.config.seed is not None):
            if self.config.seed is not None:
                torch.manual_seed(self.config.seed)
            config = self.config
            self.module = build(features, self._actions, config.hidden, config.activation, critic, config.init)
        self.refresh()

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> list[Action]:
        """Choose one legal action for each context; reads the last observation only.

        :raises RuntimeError: before ``prepare``
        :raises ValueError: a context without a legal action
        """
        if not contexts:
            return []
        seen = cast("list[Features]", [context.observations[-1] for context in contexts])
        legal = np.stack([features.legal for features in seen])
        if not legal.any(axis=1).all():
            row = int((~legal.any(axis=1)).argmax())
            raise ValueError(f"episode {contexts[row].episode!r} offers no legal action; end it, or allow one")
        logits = self._logits(np.stack([features.values for features in seen]).astype(np.float32, copy=False))
        temperature = np.array([s.temperature for s in sampling], dtype=np.float32)
        greedy = temperature == 0
        logprobs = log_softmax(logits / np.where(greedy, 1, temperature)[:, None], legal)
        drawn_from = _truncated(logprobs, legal, sampling)
        chosen = draw(logprobs if drawn_from is None else drawn_from, [context.seed for context in contexts])
        if greedy.any():
            chosen = np.where(greedy, logprobs.argmax(axis=1), chosen)
        rows = np.arange(len(chosen))
        picked = logprobs[rows, chosen].tolist()
        if drawn_from is None:
            return [Action(tokens=(a,), logprobs=(p,)) for a, p in zip(chosen.tolist(), picked, strict=True)]
        after = drawn_from[rows, chosen].tolist()
        return [
            Action(tokens=(a,), logprobs=(p,), sampled_logprobs=(q,))
            for a, p, q in zip(chosen.tolist(), picked, after, strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Read actions written as their index.

        :raises ValueError: for anything but the index of an action
        """
        encoded: list[tuple[int, ...]] = []
        for text in texts:
            if not text.strip().isdecimal() or int(text) >= self._actions:
                raise ValueError(f"action {text!r}: expected an index from 0 to {self._actions - 1}")
            encoded.append((int(text),))
        return encoded

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        """Lay plays out one step a column; the state a play was cut off at follows as one untrained position.

        ``inputs``: features [B, T, D], actions [B, T], legal [B, T, A] (nowhere legal: padding), temperature [B].
        """
        seen: list[Features] = []
        row: list[int] = []
        column: list[int] = []
        for index, rollout in enumerate(rollouts):
            states = [turn.observation for turn in rollout.turns if turn.action.tokens]
            if rollout.cut_at is not None:
                states.append(rollout.cut_at)
            seen += cast("list[Features]", states)
            row += [index] * len(states)
            column += range(len(states))
        batch, width = len(rollouts), max(column, default=0) + 1
        network = cast("ActorCritic", self.module)
        first = cast("nn.Linear", network.body[0]) if len(network.body) else network.actor
        features = torch.zeros(batch, width, first.in_features)
        legal = torch.zeros(batch, width, self._actions, dtype=torch.bool)
        actions, turn = np.zeros((batch, width), np.int64), np.full((batch, width), -1, np.int64)
        logprobs, bootstrap = np.zeros((batch, width), np.float32), np.zeros((batch, width), bool)
        if seen:
            features[row, column] = torch.from_numpy(np.stack([s.values for s in seen]).astype(np.float32, copy=False))
            legal[row, column] = torch.from_numpy(np.stack([s.legal for s in seen]))
        for index, rollout in enumerate(rollouts):
            played = [(i, t) for i, t in enumerate(rollout.turns) if t.action.tokens]
            count = len(played)
            actions[index, :count] = [t.action.tokens[0] for _, t in played]
            logprobs[index, :count] = [t.action.logprobs[0] if t.action.logprobs else 0.0 for _, t in played]
            turn[index, :count] = [i if t.step is None else t.step for i, t in played]
            bootstrap[index, count : count + 1] = rollout.cut_at is not None
        temperature = [r.sampling.temperature or 1.0 for r in rollouts]
        return Packed(
            inputs={
                "features": features,
                "actions": torch.from_numpy(actions),
                "legal": legal,
                "temperature": torch.tensor(temperature, dtype=torch.float32),
            },
            mask=torch.from_numpy(turn >= 0),
            behaviour_logprobs=torch.from_numpy(logprobs),
            turn=torch.from_numpy(turn),
            bootstrap=torch.from_numpy(bootstrap) if bootstrap.any() else None,
        )

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> dict[Column, Tensor]:
        """Compute statistics over the legal actions; padding is skipped and holds 0.

        ``LOGITS`` of illegal actions are -1e9. ``VOCAB_MEAN_LOGPROB`` is the mean over the legal actions.

        :raises RuntimeError: values are wanted of a policy without a critic
        """
        if Column.VALUE in wanted and self.module.critic is None:
            raise RuntimeError("this policy was prepared without a critic; declare (.., VALUE) in `needs`")
        shape = inputs["legal"].shape[:2]
        present = inputs["legal"].any(-1).flatten().nonzero().squeeze(1)
        real = {name: inputs[name].flatten(0, 1)[present] for name in ("features", "legal", "actions")}
        legal = real["legal"]
        logits, values = self.module(
            real["features"], choose=bool(wanted - {Column.VALUE}), value=Column.VALUE in wanted
        )
        found: dict[Column, Tensor] = {}
        if values is not None:
            found[Column.VALUE] = values
        if logits is not None:
            temperature = inputs["temperature"][present // shape[1]]
            logits = (logits / temperature[:, None]).masked_fill(~legal, float(ILLEGAL))
            logprobs = torch.log_softmax(logits, -1)
            if Column.LOGPROB in wanted:
                found[Column.LOGPROB] = logprobs.gather(-1, real["actions"][:, None]).squeeze(-1)
            if Column.ENTROPY in wanted:
                found[Column.ENTROPY] = -(logprobs.exp() * logprobs).sum(-1)
            if Column.VOCAB_MEAN_LOGPROB in wanted:
                found[Column.VOCAB_MEAN_LOGPROB] = logprobs.masked_fill(~legal, 0).sum(-1) / legal.sum(-1)
            if Column.LOGITS in wanted:
                found[Column.LOGITS] = logits
        return {column: _spread(values, present, shape) for column, values in found.items()}

    def refresh(self) -> None:
        """Copy the trained weights to the network that acts."""
        if self._acting is None:
            self._acting = copy.deepcopy(cast("ActorCritic", self.module)).requires_grad_(False)
        else:
            self._acting.load_state_dict(self.module.state_dict())

    def _logits(self, features: np.ndarray) -> np.ndarray:
        if self._acting is None:
            raise RuntimeError("mlp does not know its sizes yet; call prepare(environment, wanted) first")
        device = self._acting.actor.weight.device
        with torch.inference_mode():
            return self._acting.logits(torch.from_numpy(features).to(device)).cpu().numpy()


def _truncated(logprobs: np.ndarray, legal: np.ndarray, sampling: Sequence[Sampling]) -> np.ndarray | None:
    """Log-probabilities after top-k and top-p; None when nobody truncates."""
    if all(s is sampling[0] for s in sampling):
        sampling_set: Sequence[Sampling] = sampling[:1]
    else:
        sampling_set = sampling
    if all(s.top_k == 0 and s.top_p >= 1 for s in sampling_set):
        return None
    top_k = np.array([s.top_k for s in sampling])
    top_p = np.array([s.top_p for s in sampling])
    return log_softmax(logprobs, truncate(logprobs, legal, top_k, top_p))


def _spread(values: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
    """Put [N, ...] back to [B, T, ...], 0 where nothing was computed."""
    full = values.new_zeros(shape.numel(), *values.shape[1:])
    return full.index_copy(0, places, values).unflatten(0, shape)
