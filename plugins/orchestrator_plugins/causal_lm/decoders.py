"""Decoders for any transformers model: with its own cache, or without one where its cache does not do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .architecture import Transformer
from .generation import Decoder

logger = logging.getLogger(__name__)

_PROBES = (5, 40, 23)  # lengths of the prompts a model is tried on


class TransformersDecoder:
    """Any transformers causal language model with its own cache; prompts padded on the left."""

    def __init__(self, transformer: Transformer, pad: int):
        self._transformer, self._pad = transformer, pad
        self._device = next(transformer.parameters()).device

    def read(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], room: int) -> Tensor:
        from transformers import DynamicCache

        width = max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(p)) + list(p) for p in prompts], device=self._device)
        present = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        self._cache = DynamicCache(config=self._transformer.config.get_text_config())
        logits = self._forward(ids, present, (present.cumsum(1) - 1).clamp(min=0))
        owners = torch.tensor(rows, device=self._device)
        if len(prompts) < len(rows):
            self._cache.batch_select_indices(owners)
        self._present = present[owners]
        self._position = self._present.sum(1, keepdim=True)
        return logits[owners]

    def step(self, tokens: Tensor) -> Tensor:
        self._present = torch.cat([self._present, torch.ones_like(self._present[:, :1])], dim=1)
        logits = self._forward(tokens[:, None], self._present, self._position)
        self._position = self._position + 1
        return logits

    def keep(self, order: Tensor) -> None:
        self._cache.batch_select_indices(order)
        self._present, self._position = self._present[order], self._position[order]

    def _forward(self, ids: Tensor, present: Tensor, positions: Tensor) -> Tensor:
        return self._transformer(
            input_ids=ids,
            attention_mask=present,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]


class CachelessDecoder:
    """Any causal language model, every token from the beginning: slow, and right where a cache is not.

    Rows are padded on the right, which no earlier place of a causal model sees.
    """

    def __init__(self, transformer: Transformer, pad: int):
        self._transformer, self._pad = transformer, pad
        self._device = next(transformer.parameters()).device

    def read(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], room: int) -> Tensor:
        self._lengths = torch.tensor([len(prompts[row]) for row in rows], device=self._device)
        width = max(map(len, prompts)) + room
        self._ids = torch.tensor(
            [[*prompts[row], *[self._pad] * (width - len(prompts[row]))] for row in rows], device=self._device
        )
        return self._forward()

    def step(self, tokens: Tensor) -> Tensor:
        self._ids[torch.arange(len(tokens), device=self._device), self._lengths] = tokens
        self._lengths = self._lengths + 1
        return self._forward()

    def keep(self, order: Tensor) -> None:
        self._ids, self._lengths = self._ids[order], self._lengths[order]

    def _forward(self) -> Tensor:
        ids = self._ids[:, : int(self._lengths.max())]
        present = torch.arange(ids.shape[1], device=self._device) < self._lengths[:, None]
        logits = self._transformer(input_ids=ids, attention_mask=present.long(), use_cache=False).logits
        return logits[torch.arange(len(ids), device=self._device), self._lengths - 1]


def decoder_for(transformer: Transformer, pad: int) -> Callable[[Transformer, int], Decoder]:
    """The quickest decoder that computes what the model computes: it is tried on a few short prompts.

    Caches of recurrent and hybrid models (Mamba, RWKV, Bamba, ...) have states that rows of other lengths disturb, or that
    cannot be reordered when rows end.
    """
    expected = _tried(CachelessDecoder, transformer, pad)
    try:
        reason = _difference(_tried(TransformersDecoder, transformer, pad), expected)
    except Exception as error:  # whatever a model of any author does with a cache that it does not know
        reason = f"{type(error).__name__}: {error}"
    if reason is None:
        return TransformersDecoder
    logger.warning(
        "%s generates without a cache, which takes longer the longer the text: with transformers' own it goes wrong (%s)",
        type(transformer).__name__,
        reason,
    )
    return CachelessDecoder


def check_causal(transformer: Transformer) -> None:
    """Make sure that what follows a place, padding included, changes nothing there.

    :raises ValueError: it does, so that rows cannot be trained side by side
    """
    device = next(transformer.parameters()).device
    short, long = (torch.tensor([prompt], device=device) for prompt in _prompts(transformer)[:2])
    padded = torch.cat([short, short.new_zeros(1, long.shape[1] - short.shape[1])], 1)
    present = torch.arange(long.shape[1], device=device) < torch.tensor(
        [[short.shape[1]], [long.shape[1]]], device=device
    )
    with torch.no_grad():
        alone = transformer(input_ids=short, use_cache=False).logits[0]
        both = transformer(input_ids=torch.cat([padded, long]), attention_mask=present.long(), use_cache=False).logits
    reason = _difference([both[0, : short.shape[1]]], [alone])
    if reason is not None:
        raise ValueError(
            f"{type(transformer).__name__} computes other logits for a text that stands beside a longer one ({reason}); it "
            "cannot be trained in batches. Use another architecture"
        )


def _prompts(transformer: Transformer) -> list[tuple[int, ...]]:
    vocabulary = transformer.get_output_embeddings().weight.shape[0]
    return [tuple((3 * place + 7 * length) % vocabulary for place in range(length)) for length in _PROBES]


def _tried(kind: Callable[[Transformer, int], Decoder], transformer: Transformer, pad: int) -> list[Tensor]:
    """Logits of three prompts in four rows, of three steps, and after a row has left."""
    training = transformer.training
    transformer.eval()
    try:
        with torch.no_grad():
            decoder, prompts = kind(transformer, pad), _prompts(transformer)
            found = [decoder.read(prompts, [0, 1, 2, 1], 3)]
            for _ in range(2):
                found.append(decoder.step(torch.tensor([1, 2, 3, 4], device=found[0].device)))
            order = torch.tensor([0, 3, 2], device=found[0].device)
            decoder.keep(order)
            found.append(decoder.step(torch.tensor([5, 6, 7], device=order.device)))
            return found
    finally:
        transformer.train(training)


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """How far logits are from what they should be; None where that is rounding."""
    for one, other in zip(found, expected, strict=True):
        error, size = (one.float() - other.float()).abs().max().item(), other.float().abs().max().item()
        coarse = torch.finfo(other.dtype).eps ** 0.5  # 3e-4 in float32, 0.09 in bfloat16
        if not error <= coarse * max(1.0, size):
            return f"logits differ by {error:.2g}"
    return None
