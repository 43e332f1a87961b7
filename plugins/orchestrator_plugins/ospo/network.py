"""The pair network: one perceptron for every (vehicle, request) pair, and a critic of vehicles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of LeakyReLU; released code
CHUNK = 16_384  # pairs in one forward pass when acting: larger ones leave the cache


class PairNetwork(nn.Module):
    """Scores a pair from the vehicle's numbers followed by the request's.

    The first layer is one matrix; its products with vehicles and with requests are computed apart and added, which
    is the same number and saves repeating them for every pair.
    """

    def __init__(self, vehicle: int, pair: int, hidden: Sequence[int], *, critic: bool):
        """Build with torch's initial weights.

        :param vehicle: numbers of a vehicle
        :param pair: numbers of a request as one vehicle sees it
        """
        super().__init__()
        self.vehicle = vehicle
        self.score = _perceptron(vehicle + pair, hidden)
        self.critic = _perceptron(vehicle, hidden) if critic else None

    def pair_logits(self, vehicles: Tensor, pairs: Tensor, vehicle_of: Tensor) -> Tensor:
        """Logits of listed pairs.

        :param vehicles: [N, 23]
        :param pairs: [P, 5 or 7] what the vehicle sees of the request
        :param vehicle_of: [P] int64, index into ``vehicles``
        :returns: [P]
        """
        own, seen, bias = self._first_layer()
        first = (vehicles @ own.T + bias)[vehicle_of] + pairs @ seen.T
        return self.score[1:](first).squeeze(-1)

    def all_logits(self, vehicles: Tensor, requests: Tensor, minutes: Tensor | None) -> Tensor:
        """Logits of every vehicle with every request.

        :param vehicles: [N, 23]
        :param requests: [M, 5 or 6] shared by all vehicles
        :param minutes: [N, M] the last input of a pair, where there is one
        :returns: [N, M]
        """
        own, seen, bias = self._first_layer()
        by_vehicle = vehicles @ own.T + bias
        by_request = requests @ seen[:, : requests.shape[1]].T
        step = max(1, CHUNK // max(len(requests), 1))
        rows = []
        for start in range(0, len(vehicles), step):
            first = by_vehicle[start : start + step, None] + by_request
            if minutes is not None:
                first = first + minutes[start : start + step, :, None] * seen[:, -1]
            rows.append(self.score[1:](first).squeeze(-1))
        return torch.cat(rows) if rows else vehicles.new_zeros(0, len(requests))

    def values(self, vehicles: Tensor) -> Tensor:
        """[N, 23] to [N]."""
        assert self.critic is not None
        return self.critic(vehicles).squeeze(-1)

    def _first_layer(self) -> tuple[Tensor, Tensor, Tensor]:
        first = cast("nn.Linear", self.score[0])
        return first.weight[:, : self.vehicle], first.weight[:, self.vehicle :], first.bias


def _perceptron(inputs: int, hidden: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.LeakyReLU(SLOPE)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 1))
