"""Whose fault it is that a loss or a gradient is not finite: the policy's, the objective's, or nobody's plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from orchestrator.contract.batch import Batch, Column, Terms
from orchestrator.training.reduction import Denominators, keyed, weigh


class Finding(NamedTuple):
    """What is not finite, and the role at fault; None: the weights have left the range of numbers, which no plugin did."""

    said: str
    role: str | None


def look_into(
    passes: Iterable[tuple[Terms, Mapping[Column, Tensor], Batch, Denominators]], module: nn.Module, *, trained: bool
) -> Finding:
    """Find the first number that is not finite along the way from the weights to the gradient.

    :param passes: of each micro-batch, made anew: terms, current columns, batch, denominators of the mini-batch
    :param trained: whether the weights have moved since the trial began
    """
    weights = [name for name, parameter in module.named_parameters() if not bool(parameter.isfinite().all())]
    if weights:
        return Finding(f"the weights {weights[0]!r} are not finite", None if trained else "policy")
    for terms, current, batch, denominators in passes:
        for column, values in current.items():
            mask = batch.mask if values.dim() == 2 else batch.mask[..., None]
            if column != Column.LOGITS and _where(values, mask):
                return Finding(
                    f"the policy's {column} is not finite, while its weights are", None if trained else "policy"
                )
        parts = {(key, term.name): weigh(term, batch, denominators, key) for key, term in keyed(terms, "loss")}
        for (_, name), part in parts.items():
            if not bool(part.isfinite()):
                return Finding(
                    f"loss term {name!r} is {float(part.detach())}, while the columns and advantages it is made of are finite",
                    "objective",
                )
        loss = torch.stack(list(parts.values())).sum()
        inputs = {column: values for column, values in current.items() if values.requires_grad}
        if loss.requires_grad and inputs:
            slopes = torch.autograd.grad(loss, list(inputs.values()), retain_graph=True, allow_unused=True)
            for column, slope in zip(inputs, slopes, strict=True):
                if slope is not None and not bool(slope.isfinite().all()):
                    return Finding(
                        f"the gradient of the loss in {column} is not finite, while the loss is; mask with torch.where "
                        "before a function whose slope is infinite, as those of sqrt and log are at 0",
                        "objective",
                    )
    return Finding("the gradient overflows on its way through the policy", None)


def _where(values: Tensor, mask: Tensor) -> bool:
    return bool((~values.isfinite() & mask).any())
