"""A policy over features as a player of tournaments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from orchestrator.api import Context, Environment, Features, Prepares, Sampling, Speaks

from .config import NetworkConfig
from .encodings import LENGTHS, choice, encode, head_size, legal_actions
from .game import Round

if TYPE_CHECKING:
    from orchestrator.api import ComponentSource

MODEL = "model.safetensors"


class _Sizes:
    """What a policy's ``prepare`` asks of an environment."""

    speaks = Speaks.FEATURES

    def __init__(self, config: NetworkConfig):
        self.features = LENGTHS[config.encoding]
        self.actions = head_size(config.head)


class NetworkPlayer:
    """Asks a policy for every decision, with the encoding and action head it was trained with."""

    name = "network"

    def __init__(self, config: NetworkConfig, seats: int, registry: ComponentSource):
        """Build the policy and load its weights.

        :raises FileNotFoundError: the checkpoint has no ``model.safetensors``
        :raises ValueError: the weights do not fit the policy
        """
        self._config = config
        options = dict(config.policy)
        torch.manual_seed(config.seed)
        policy: Any = registry.build("policy", options.pop("use"), options)
        if isinstance(policy, Prepares):
            policy.prepare(cast("Environment", _Sizes(config)), frozenset())
        if config.checkpoint is not None:
            _load(policy.module, config.checkpoint.expanduser())
        policy.refresh()
        self._policy = policy
        self._sampling = Sampling(temperature=config.temperature)

    def call(self, game: Round) -> bool:
        """Ask the policy."""
        return bool(self._choose(game))

    def discard(self, game: Round) -> Sequence[int]:
        """Ask the policy."""
        return self._choose(game)

    def draw(self, game: Round) -> bool:
        """Ask the policy."""
        return bool(self._choose(game))

    def _choose(self, game: Round) -> Any:
        config = self._config
        seen = Features(
            values=encode(game, game.seat, config.encoding), legal=legal_actions(game, config.head, config.defects)
        )
        seed = game.rng.getrandbits(62) if config.temperature else 0
        context = Context(episode="tournament", agent=None, observations=(seen,), actions=(), seed=seed)
        (action,) = self._policy.act([context], [self._sampling])
        return choice(game, action.tokens[0], config.head, config.defects)


def _load(module: torch.nn.Module, directory: Path) -> None:
    """Load weights; parameters the module lacks (a critic's) are left out."""
    try:
        tensors = load_file(directory / MODEL)
    except SafetensorError as error:
        raise ValueError(f"{directory / MODEL} cannot be read: {error}") from error
    own = module.state_dict()
    try:
        module.load_state_dict({name: tensors[name] for name in own})
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{directory / MODEL} does not fit the player's policy ({error}); give the player the `policy`, `encoding` "
            f"and `head` it was trained with"
        ) from error
