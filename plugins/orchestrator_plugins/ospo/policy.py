"""The policy ``pair_scorer``: a softmax over requests for each vehicle, and one matching for the whole fleet.

The recorded log-probability is the vehicle's own softmax entry of the executed pair, not the probability of the joint
matching (nobody computes that), so importance ratios are a heuristic, as in the released code. Exploration overwrites
scores before the matching and never enters a recorded probability.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
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
    Packed,
    Problem,
    Rollout,
    Sampling,
    Speaks,
    splitmix64,
    unit_interval,
)

from .config import PairScorerConfig
from .matching import ALWAYS, NEVER, match
from .network import PairNetwork
from .observation import Snapshot, VehicleView

FLOOR = 1e-8  # added to every probability; released code
MASKED = -1e9  # logit of a request that is not there
REMEMBERED = 4096  # episodes whose exploration rate is kept; far more than are ever open at once
IDLE = Action(tokens=(), logprobs=())


class PairScorer:
    """Scores pairs and matches; trained through the pairs it made.

    Temperature 0, as evaluation should ask for, turns exploration off; the probabilities are those of temperature 1
    then. A vehicle that stays idle answers with no token: it is no sample. The exploration rate falls with every
    training episode that opens, and is part of the state that checkpoints keep.
    """

    speaks = Speaks.FEATURES

    def __init__(self, config: PairScorerConfig):
        self.config = config
        self.module: nn.Module = nn.Module()  # sized by prepare
        self.episodes = 0  # training episodes begun
        self._acting: PairNetwork | None = None
        self._pair_features = 0
        self._rates: OrderedDict[str, float] = OrderedDict()

    def prepare(self, environment: Environment, wanted: frozenset[Column]) -> None:
        """Size the network for the environment; a critic is made only when values are wanted.

        :raises ConfigError: the environment is no dispatch
        """
        if not hasattr(environment, "pair_features"):
            raise ConfigError(
                [Problem("policy", f"pair_scorer plays the environment dispatch, not {type(environment).__name__}")]
            )
        sizes: Any = environment  # its own, no part of the role
        self._pair_features = sizes.pair_features
        with torch.random.fork_rng(devices=[], enabled=self.config.seed is not None):
            if self.config.seed is not None:
                torch.manual_seed(self.config.seed)
            self.module = PairNetwork(
                sizes.vehicle_features,
                sizes.pair_features,
                self.config.hidden,
                critic=Column.VALUE in wanted,
            )
        self.refresh()

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> list[Action]:
        """Match every world's free vehicles with its requests.

        :raises RuntimeError: before ``prepare``
        :raises ValueError: top-k or top-p, which mean nothing here
        """
        actions: list[Action] = [IDLE] * len(contexts)
        for places in worlds(contexts):
            snapshot, how = views(contexts, places[:1])[0].snapshot, sampling[places[0]]
            if how.top_k or how.top_p < 1:
                raise ValueError("pair_scorer matches; top_k and top_p have no meaning here, leave them at 0 and 1")
            asked = contexts, places
            epsilon = self._epsilon(contexts[places[0]].episode, snapshot) if how.temperature else 0.0
            for place, slot, logprob in self._match(snapshot, *asked, how.temperature or 1.0, epsilon):
                actions[place] = Action(tokens=(slot,), logprobs=(logprob,))
        return actions

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Refuse: a world of several agents has no demonstrations."""
        raise ValueError("pair_scorer has no actions as text; dispatch offers no demonstrations")

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        """Lay out the pairs each vehicle made, one decision a column.

        ``inputs``: vehicles [B, T, 23], pairs [B, T, M, 5 or 7], legal [B, T, M], actions [B, T], temperature [B].
        """
        made = [
            [
                (turn.step if turn.step is not None else i, turn)
                for i, turn in enumerate(rollout.turns)
                if turn.action.tokens
            ]
            for rollout in rollouts
        ]
        seen = cast("list[VehicleView]", [turn.observation for row in made for _, turn in row])
        batch, width = len(rollouts), max(map(len, made), default=0) or 1
        most = max((len(view.snapshot.requests) for view in seen), default=0) or 1
        vehicles = np.zeros((batch, width, self._network.vehicle), np.float32)
        pairs = np.zeros((batch, width, most, self._pair_features), np.float32)
        legal = np.zeros((batch, width, most), bool)
        actions, turn_of = np.zeros((batch, width), np.int64), np.full((batch, width), -1, np.int64)
        logprobs = np.zeros((batch, width), np.float32)
        for row, decisions in enumerate(made):
            for column, (step, turn) in enumerate(decisions):
                view = cast("VehicleView", turn.observation)
                count = len(view.snapshot.requests)
                vehicles[row, column] = view.snapshot.vehicles[view.row]
                pairs[row, column, :count] = view.pairs()
                legal[row, column, :count] = True
                actions[row, column], turn_of[row, column] = turn.action.tokens[0], step
                logprobs[row, column] = turn.action.logprobs[0]
        return Packed(
            inputs={
                "vehicles": torch.from_numpy(vehicles),
                "pairs": torch.from_numpy(pairs),
                "legal": torch.from_numpy(legal),
                "actions": torch.from_numpy(actions),
                "temperature": torch.tensor([r.sampling.temperature or 1.0 for r in rollouts], dtype=torch.float32),
            },
            mask=torch.from_numpy(turn_of >= 0),
            behaviour_logprobs=torch.from_numpy(logprobs),
            turn=torch.from_numpy(turn_of),
        )

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> dict[Column, Tensor]:
        """Compute statistics over the requests that were offered; padding is skipped and holds 0.

        ``LOGITS`` of absent requests are -1e9. ``LOGPROB`` has the released code's 1e-8 added to the probability.

        :raises RuntimeError: values are wanted of a policy without a critic
        """
        network = self._network
        if Column.VALUE in wanted and network.critic is None:
            raise RuntimeError("this policy was prepared without a critic; declare (.., VALUE) in `needs`")
        legal = inputs["legal"]
        present = legal.any(-1)
        vehicles, legal = inputs["vehicles"][present], legal[present]
        found: dict[Column, Tensor] = {}
        if Column.VALUE in wanted:
            found[Column.VALUE] = network.values(vehicles)
        if wanted - {Column.VALUE}:
            sample, slot = legal.nonzero(as_tuple=True)
            listed = network.pair_logits(vehicles, inputs["pairs"][present][sample, slot], sample)
            temperature = inputs["temperature"][:, None].expand_as(present)[present]
            logits = listed.new_full(legal.shape, MASKED).index_put((sample, slot), listed / temperature[sample])
            found |= _statistics(logits, legal, inputs["actions"][present], wanted)
        return {column: _spread(values, present) for column, values in found.items()}

    def refresh(self) -> None:
        """Copy the trained weights to the network that acts."""
        if self._acting is None:
            self._acting = copy.deepcopy(self._network).requires_grad_(False)
        else:
            self._acting.load_state_dict(self.module.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """How far exploration has fallen."""
        return {"episodes": self.episodes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exploring where the checkpoint stopped."""
        self.episodes = int(state["episodes"])
        self._rates.clear()

    @property
    def _network(self) -> PairNetwork:
        return cast("PairNetwork", self.module)  # once prepared

    def _epsilon(self, episode: str, snapshot: Snapshot) -> float:
        """Exploration rate of a training episode, set when it opens."""
        if snapshot.opening or episode not in self._rates:
            self.episodes += 1
            decayed = self.config.epsilon * self.config.epsilon_decay**self.episodes
            self._rates[episode] = max(decayed, self.config.epsilon_floor) if self.config.epsilon else 0.0
            if len(self._rates) > REMEMBERED:
                self._rates.popitem(last=False)
        return self._rates[episode]

    def _match(
        self,
        snapshot: Snapshot,
        contexts: Sequence[Context],
        places: Sequence[int],
        temperature: float,
        epsilon: float,
    ) -> list[tuple[int, int, float]]:
        """Pairs made in one world: place of the context, request, log-probability."""
        if self._acting is None:
            raise RuntimeError("pair_scorer does not know its sizes yet; call prepare(environment, wanted) first")
        if not len(snapshot.requests):
            return []
        rows = np.array([view.row for view in views(contexts, places)])
        with torch.inference_mode():
            device = next(self._acting.score.parameters()).device
            minutes = None if snapshot.minutes is None else torch.from_numpy(snapshot.minutes[rows]).to(device)
            logits = self._acting.all_logits(
                torch.from_numpy(snapshot.vehicles[rows]).to(device),
                torch.from_numpy(snapshot.requests).to(device),
                minutes,
            )
            probabilities = torch.softmax(logits / temperature, -1).cpu().numpy().astype(np.float64) + FLOOR
        scores = probabilities
        if epsilon:
            drawn = unit_interval(splitmix64([contexts[place].seed for place in places], scores.shape[1]))
            scores = np.where(drawn < epsilon, ALWAYS, scores)
        scores = np.where(snapshot.busy[rows, None], NEVER, scores)
        chosen = match(scores)
        logprobs = np.log(probabilities)
        return [
            (places[index], int(chosen[index]), float(logprobs[index, chosen[index]]))
            for index in np.flatnonzero(chosen >= 0)
        ]


def worlds(contexts: Sequence[Context]) -> list[list[int]]:
    """Places of the contexts that share a snapshot: the fleet of one world in one minute."""
    grouped: dict[int, list[int]] = {}
    for place, context in enumerate(contexts):
        view = context.observations[-1]
        if not isinstance(view, VehicleView):
            raise ValueError(f"pair_scorer reads observations of dispatch, not {type(view).__name__}")
        grouped.setdefault(id(view.snapshot), []).append(place)
    return list(grouped.values())


def views(contexts: Sequence[Context], places: Sequence[int]) -> list[VehicleView]:
    """What the contexts at places that ``worlds`` returned see now."""
    return cast("list[VehicleView]", [contexts[place].observations[-1] for place in places])


def _statistics(logits: Tensor, legal: Tensor, actions: Tensor, wanted: frozenset[Column]) -> dict[Column, Tensor]:
    logprobs = torch.log_softmax(logits, -1)
    count = legal.sum(-1)
    found: dict[Column, Tensor] = {}
    if Column.LOGPROB in wanted:
        probability = logprobs.gather(-1, actions[:, None]).squeeze(-1).exp()
        found[Column.LOGPROB] = torch.log(probability + FLOOR)
    if Column.ENTROPY in wanted:
        found[Column.ENTROPY] = -(logprobs.exp() * logprobs).sum(-1)
    if Column.VOCAB_MEAN_LOGPROB in wanted:
        found[Column.VOCAB_MEAN_LOGPROB] = logprobs.masked_fill(~legal, 0).sum(-1) / count
    if Column.LOGITS in wanted:
        found[Column.LOGITS] = logits
    return found


def _spread(values: Tensor, present: Tensor) -> Tensor:
    """Put [N, ...] back to [B, T, ...], 0 where nothing was computed."""
    full = values.new_zeros(*present.shape, *values.shape[1:])
    full[present] = values
    return full
