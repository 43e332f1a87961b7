"""The policy: renders conversations, generates, packs rollouts and computes their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.api import (
    Action,
    Column,
    Context,
    ContextError,
    Environment,
    Held,
    Packed,
    Rollout,
    Sampling,
    Speaks,
)

from .config import CausalLMConfig
from .decoders import check_causal
from .engine import TransformersEngine
from .generation import Request
from .lean import lean_for
from .loading import load
from .module import CausalLMModule, check_head, plain_weights
from .packing import lay_out, pack_rollouts
from .pretrained import quiet
from .tokenizer import CharacterTokenizer


class CausalLMPolicy:
    """A causal language model that acts in conversations and is trained on what it said."""

    speaks = Speaks.MESSAGES

    def __init__(self, config: CausalLMConfig):
        self._config = config
        self.device = torch.device(_default_device() if config.device == "auto" else config.device)
        self._loaded = load(config.model, self.device)
        self.renderer, self.context = self._loaded.renderer, self._loaded.context
        lean = lean_for(self._loaded.lm, config, self._loaded.compute)
        self.module = CausalLMModule(self._loaded.lm, lean, self._loaded.compute)
        with self.module.computing():
            check_head(self.module.transformer)
            check_causal(self.module.transformer)
        self._engine = self._make_engine(lean)

    def prepare(self, environment: Environment, wanted: frozenset[Column]) -> None:
        """Add a critic when somebody wants values."""
        if Column.VALUE in wanted and self.module.critic is None:
            self.module.add_critic(self._config.critic)

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> Sequence[Action]:
        """Continue every conversation by one action.

        :raises ContextError: when a conversation fills the context window
        """
        prompts = self._prompts(contexts)
        full = tuple(place for place, prompt in enumerate(prompts) if len(prompt) >= self.context)
        if full:
            longest = max(len(prompts[place]) for place in full)
            raise ContextError(
                f"{len(full)} of {len(prompts)} conversations leave no room to act: the longest has {longest} tokens, "
                f"the model's window holds {self.context}. Shorten the prompts, allow fewer turns "
                "(sampling.max_turns), or take a model with a longer window",
                full,
            )
        requests = [
            Request(
                prompt=prompt,
                sampling=settings,
                seed=context.seed,
                limit=min(settings.max_tokens, self.context - len(prompt)),
            )
            for prompt, context, settings in zip(prompts, contexts, sampling, strict=True)
        ]
        actions = []
        for request, generated in zip(requests, self._engine.generate(requests), strict=True):
            text, finish = self.renderer.read(generated.tokens)
            actions.append(
                Action(
                    tokens=generated.tokens,
                    logprobs=generated.logprobs,
                    text=text,
                    finish=finish,
                    sampled_logprobs=generated.sampled,
                    context_tokens=len(request.prompt),
                )
            )
        return actions

    def room(self, contexts: Sequence[Context]) -> Sequence[int]:
        """Tokens left of the context window; see ``Bounded``."""
        return [self.context - len(prompt) for prompt in self._prompts(contexts)]

    def encode(self, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
        """Ids of actions given as text, terminator included."""
        return [self.renderer.action(text) for text in texts]

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        """Lay rollouts out, one row each; see ``packing.pack_rollouts``."""
        return pack_rollouts(rollouts, self.renderer, values=self.module.critic is not None, context=self.context)

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        """Statistics of the tokens asked about, [B, T] (``LOGITS`` [B, T, V]), 0 elsewhere; see ``Column``.

        ``inputs["asked"]`` says which; without it every token but a row's first is.
        """
        layout = lay_out(inputs, self.device)
        found = self.module(layout, frozenset(wanted))
        return {column: layout.spread(found[column]) for column in wanted}

    def bytes_per_token(self, wanted: frozenset[Column]) -> float:
        """Bytes a token holds for the backward pass, measured on two short texts; see ``HoldsActivations``."""
        short, long = (_held_by(self.module, self.device, min(count, self.context)) for count in (16, 80))
        logits = 12 * self.module.transformer.get_output_embeddings().weight.shape[0] if Column.LOGITS in wanted else 0
        return max(long - short, 0) / max(min(80, self.context) - 16, 1) + logits

    def refresh(self) -> None:
        """Copy the trained weights to what ``act`` runs on."""
        self._engine.refresh()

    def export(self, directory: Path) -> None:
        """Write a folder that ``from_pretrained`` of transformers loads: config, tokenizer and weights, no critic.

        With adapters the adapters alone, beside the name of their base; where that has no folder of its own (the preset
        ``tiny``, a GGUF file), the model with adapters merged in.
        """
        lm = self._loaded.lm
        whole: dict[str, Any] = {"max_shard_size": "1TB"}  # one file: checkpoints write theirs over it
        if self._config.model.lora and self._config.model.is_merged:
            lm = self.module.transformer
            whole["state_dict"] = dict(plain_weights(lm))
        elif self._config.model.lora:
            whole["save_embedding_layers"] = False  # they are the base's, tied or not
        with quiet():
            lm.save_pretrained(directory, **whole)
        tokenizer = self._loaded.tokenizer
        (tokenizer.save if isinstance(tokenizer, CharacterTokenizer) else tokenizer.save_pretrained)(directory)

    def _prompts(self, contexts: Sequence[Context]) -> list[tuple[int, ...]]:
        return [self.renderer.context(context.observations, context.actions) for context in contexts]

    def _make_engine(self, lean):
        if self._config.engine == "vllm":
            from .vllm_engine import VllmEngine

            return VllmEngine(self, self._config.vllm)
        return TransformersEngine(
            self.module,
            lean,
            stops=self.renderer.rendering.stops,
            pad=self.renderer.rendering.pad,
            rows=self._config.batch_rows,
            snapshot=self._config.snapshot,
        )


def _held_by(module: CausalLMModule, device: torch.device, count: int) -> int:
    """Bytes that a pass over a text of so many tokens holds; the head is asked for the last alone, as its logits are chunked."""
    asked = torch.arange(count)[None] == count - 1
    layout = lay_out({"tokens": torch.zeros(1, count, dtype=torch.int64), "asked": asked}, device)
    with torch.enable_grad(), Held(tuple(module.parameters())) as held:
        module(layout, frozenset({Column.LOGPROB}))
    return held.bytes


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
