"""The step beyond: weights extrapolated past their predecessor, adapters by what they add to the model."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_DOWN = re.compile(r"(?:^|\.)lora_(?:embedding_)?A(?=\.|$)")


def extrapolated(trained: Mapping[str, Tensor], previous: Mapping[str, Tensor], momentum: float) -> dict[str, Tensor]:
    r"""Weights beyond the last round's result.

    .. math:: \theta = \hat\theta + \alpha (\hat\theta - \hat\theta^{prev})

    :param trained: result of the round, by name; tied weights once
    :param previous: result of the round before, the same names
    :param momentum: alpha; 0 gives ``trained`` to the bit
    :returns: new tensors; integer ones are copied from ``trained``
    :raises ValueError: when the names differ

    Low-rank factors (``lora_A`` with its ``lora_B``) are not extrapolated one by one: their product is, and the result
    is the nearest product of the same rank.
    Source: arXiv:2410.06293, sec. 5 (parameter space); exact in policy space where logits are linear in the weights.
    """
    if trained.keys() != previous.keys():
        different = sorted(trained.keys() ^ previous.keys())
        raise ValueError(f"the two rounds' weights differ in {len(different)} names, among them {different[:3]}")
    start = {name: tensor.clone() for name, tensor in trained.items()}
    if momentum == 0:
        return start
    adapters = _adapters(trained)
    factors = adapters.keys() | adapters.values()
    for name, tensor in trained.items():
        if name not in factors and tensor.is_floating_point():
            start[name] = tensor + momentum * (tensor - previous[name])
    for down, up in adapters.items():
        start[down], start[up] = extrapolated_adapter(
            (trained[down], trained[up]), (previous[down], previous[up]), momentum
        )
    return start


def extrapolated_adapter(
    trained: tuple[Tensor, Tensor], previous: tuple[Tensor, Tensor], momentum: float
) -> tuple[Tensor, Tensor]:
    r"""Low-rank factors (A, B) whose product is nearest to the extrapolated product.

    .. math:: BA \approx (1+\alpha) \hat B \hat A - \alpha \hat B^{prev} \hat A^{prev}

    :param trained: A [R, ...] and B [D, R, ...], products as of their flattened forms
    :returns: A and B of the same shapes and types. A's rows are orthonormal and B carries the size, so that a
        direction of no size can grow again, as in a new adapter

    Deviation: the extrapolated product has up to twice the rank; what does not fit in rank R is lost, the smallest
    singular values first. Nothing is lost after the first round, before which B is 0, if nothing else is.
    """
    (down, up), (down_before, up_before) = trained, previous
    rank = down.shape[0]
    rows = torch.cat([down.flatten(1), down_before.flatten(1)]).double()
    columns = torch.cat([(1 + momentum) * up.flatten(1), -momentum * up_before.flatten(1)], dim=1).double()
    basis, mixed = torch.linalg.qr(rows.T)  # rows = mixed' basis'
    left, sizes, right = torch.linalg.svd(columns @ mixed.T, full_matrices=False)
    new_down, new_up = (right @ basis.T)[:rank], (left * sizes)[:, :rank]
    missing = rank - new_down.shape[0]  # a matrix smaller than the rank
    if missing > 0:
        new_down = torch.cat([new_down, down.flatten(1)[rank - missing :].double()])
        new_up = torch.cat([new_up, new_up.new_zeros(len(new_up), missing)], dim=1)
    return new_down.reshape(down.shape).to(down), new_up.reshape(up.shape).to(up)


def _adapters(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of the low-rank factors: of each A, its B."""
    matches = [(name, _DOWN.search(name)) for name in weights]
    pairs = {name: f"{name[: match.end() - 1]}B{name[match.end() :]}" for name, match in matches if match}
    return {down: up for down, up in pairs.items() if up in weights}
