"""Several workers for one trial: what they add up.

Denominators are those of the whole mini-batch over all workers, so gradients are summed, not averaged, and the
result does not depend on the number of workers. No wrapper around the module is needed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


class Workers:
    """The process group of a trial; alone when torch.distributed is not initialised."""

    @property
    def size(self) -> int:
        """How many there are."""
        return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """This one's number, from 0."""
        return dist.get_rank() if self.size > 1 else 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all workers."""
        if self.size == 1:
            return tensor
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def sum(self, value: float) -> float:
        """The sum of a number over all workers."""
        return float(self.total(torch.tensor(value, dtype=torch.float64)))

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add gradients up over all workers, in place; a parameter without gradient counts as zero."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def maximum(self, value: float) -> float:
        """The largest of the workers' values."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor)
