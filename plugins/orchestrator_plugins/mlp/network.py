"""The network: an actor, and a critic where one is wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "silu": nn.SiLU}


class ActorCritic(nn.Module):
    """Logits over actions, and values.

    Parameters under ``body`` and ``actor`` choose; those under ``critic`` value. A critic that is a head shares ``body``.
    """

    def __init__(self, features: int, actions: int, hidden: Sequence[int], activation: str, critic: str | None):
        """Build with torch's initial weights.

        :param critic: ``head``, ``separate``, or None for no critic
        """
        super().__init__()
        width = hidden[-1] if hidden else features
        self.body = _layers(features, hidden, activation)
        self.actor = nn.Linear(width, actions)
        self.shares_body = critic == "head"
        self.critic: nn.Sequential | None = None
        if critic == "head":
            self.critic = nn.Sequential(nn.Linear(width, 1))
        elif critic == "separate":
            self.critic = nn.Sequential(*_layers(features, hidden, activation), nn.Linear(width, 1))

    def logits(self, features: Tensor) -> Tensor:
        """[..., D] to [..., A], nothing masked."""
        return self.actor(self.body(features))

    def forward(
        self, features: Tensor, *, choose: bool = True, value: bool = False
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute logits [N, A] and values [N] of features [N, D], each only if asked for."""
        hidden = self.body(features) if choose or self.shares_body else None
        logits = self.actor(hidden) if choose else None
        values = None
        if value:
            assert self.critic is not None
            values = self.critic(hidden if self.shares_body else features).squeeze(-1)
        return logits, values

    def orthogonal(self) -> None:
        """Draw orthogonal weights: gain sqrt 2 in hidden layers, 0.01 for actions, 1 for values; zero biases.

        A small last layer starts near the uniform policy. Source: Andrychowicz et al. 2021 (arXiv:2006.05990), sec. 3.2.
        """
        last = self.critic[-1] if self.critic is not None else None
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                gain = 0.01 if layer is self.actor else 1.0 if layer is last else math.sqrt(2)
                nn.init.orthogonal_(layer.weight, gain)
                nn.init.zeros_(layer.bias)


def _layers(features: int, hidden: Sequence[int], activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    return nn.Sequential(*layers)


def build(
    features: int, actions: int, hidden: Sequence[int], activation: str, critic: str | None, init: str
) -> ActorCritic:
    """Build and initialise from torch's global generator."""
    network = ActorCritic(features, actions, hidden, activation, critic)
    if init == "orthogonal":
        network.orthogonal()
    return network.to(torch.float32)
