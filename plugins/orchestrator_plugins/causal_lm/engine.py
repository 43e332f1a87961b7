"""The engine that generates in this process, with the weights of the last refresh."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .architecture import Transformer
from .decoders import decoder_for
from .generation import Decoder, Generated, Request, generate
from .module import CausalLMModule


class TransformersEngine:
    """Generates with the module's own architecture: the lean decoder where there is one, else transformers'."""

    def __init__(
        self, module: CausalLMModule, lean: Any | None, *, stops: Iterable[int], pad: int, rows: int, snapshot: bool
    ):
        self._module, self._lean, self._stops, self._pad, self._rows = module, lean, frozenset(stops), pad, rows
        self._keeps_copy = snapshot
        with module.computing():
            self._make_decoder = None if lean is not None else decoder_for(module.transformer, pad)
        self._weights: Any | None = None  # what acts; None until the first use

    def refresh(self) -> None:
        """Take over the module's present weights."""
        with torch.no_grad():
            if self._lean is not None:
                self._weights = self._lean.snapshot(self._module.transformer)
            elif self._keeps_copy:
                compute = self._module.compute
                self._weights = {
                    name: parameter.detach().to(compute or parameter.dtype, copy=True)
                    for name, parameter in self._module.lm.named_parameters()
                    if parameter.requires_grad
                }

    def generate(self, requests: Sequence[Request]) -> list[Generated]:
        """Continue every prompt, requests of similar length together."""
        if self._weights is None:
            self.refresh()
        order = sorted(range(len(requests)), key=lambda place: (len(requests[place].prompt), requests[place].prompt))
        results: dict[int, Generated] = {}
        transformer = self._module.transformer
        vocabulary = transformer.get_output_embeddings().weight.shape[0]
        with torch.inference_mode(), self._acting(transformer), self._computing():
            for start in range(0, len(order), self._rows):
                places = order[start : start + self._rows]
                generated = generate(self._decoder(transformer), [requests[p] for p in places], self._stops, vocabulary)
                for place, one in zip(places, generated, strict=True):
                    results[place] = one
        return [results[place] for place in range(len(requests))]

    def _decoder(self, transformer: Transformer) -> Decoder:
        if self._make_decoder is None:
            assert self._lean is not None
            return self._lean.decoder(self._weights)
        return self._make_decoder(transformer, self._pad)

    def _computing(self) -> AbstractContextManager[Any]:
        """The copied weights are of the policy's precision already; the trained ones are not."""
        return nullcontext() if self._lean is not None or self._keeps_copy else self._module.computing()

    @contextmanager
    def _acting(self, transformer: Transformer) -> Iterator[None]:
        """Put the copied weights in place, in evaluation mode (gradient checkpointing forbids a cache in training)."""
        training = transformer.training
        copies: dict[str, Tensor] = self._weights if self._lean is None and self._weights else {}
        owners = dict(self._module.lm.named_parameters())
        held = {name: owners[name].data for name in copies}
        for name, value in copies.items():
            owners[name].data = value
        transformer.eval()
        try:
            yield
        finally:
            transformer.train(training)
            for name, value in held.items():
                owners[name].data = value
