"""Shapes: say which tensor is wrong, what it is and what it should be; number the groups of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Masked(Protocol):
    """What has rows and tokens, as a batch does."""

    @property
    def mask(self) -> Tensor:
        """[B, T] bool."""


def expect_shape(
    tensor: Tensor, dimensions: str, *, like: Masked | Tensor | Mapping[str, int], name: str = "tensor"
) -> Tensor:
    """Check a tensor's shape against dimension letters and return the tensor.

    :param dimensions: letters separated by spaces, as in ``"B T"``; a letter ``like`` does not know takes any size
    :param like: a batch (knows B and T), a tensor of the same dimensions, or sizes by letter
    :param name: what to call the tensor in the message
    :raises ValueError: with the name, the shape given and the shape expected
    """
    letters = dimensions.split()
    sizes = _sizes(like, letters)
    right = tensor.dim() == len(letters) and all(
        sizes.get(letter, size) == size for letter, size in zip(letters, tensor.shape, strict=True)
    )
    if not right:
        expected = ", ".join(f"{letter}={sizes[letter]}" if letter in sizes else letter for letter in letters)
        raise ValueError(f"{name} has shape {list(tensor.shape)}; expected [{expected}]")
    return tensor


def group_index(group: Tensor) -> tuple[Tensor, int]:
    """Number the groups of a batch by first appearance.

    :param group: [B] int64, siblings share a value
    :returns: [B] int64 with values from 0 to N - 1, and N
    """
    ids, inverse = torch.unique(group, return_inverse=True)
    places = torch.arange(len(group), device=group.device)
    first = torch.full_like(ids, len(group)).scatter_reduce(0, inverse, places, reduce="amin")
    return first.argsort().argsort()[inverse], len(ids)


def _sizes(like: Masked | Tensor | Mapping[str, int], letters: list[str]) -> Mapping[str, int]:
    if isinstance(like, Mapping):
        return like
    if isinstance(like, torch.Tensor):
        return dict(zip(letters, like.shape, strict=False)) if like.dim() == len(letters) else {}
    rows, tokens = like.mask.shape
    return {"B": rows, "T": tokens}
