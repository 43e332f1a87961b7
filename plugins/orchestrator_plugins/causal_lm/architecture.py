"""What this plugin reads of transformers' models, as types. Models are cast to them; nobody makes one.

``nn.Module`` promises of any attribute that it is a tensor or a module, and transformers' own classes differ between
versions; these name what is relied on, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """The part of a model below its vocabulary head."""

    dtype: torch.dtype
    get_input_embeddings: Callable[[], nn.Embedding]


class Transformer(nn.Module):
    """A causal language model of any architecture; peft's wrapper of one passes on what it is asked for."""

    config: Any  # attributes by architecture
    generation_config: Any
    dtype: torch.dtype
    device: torch.device
    base_model: Backbone
    get_input_embeddings: Callable[[], nn.Embedding]
    get_output_embeddings: Callable[[], nn.Linear]
    gradient_checkpointing_enable: Callable[..., None]
    enable_input_require_grads: Callable[[], None]
    save_pretrained: Callable[..., Any]


class LlamaTransformer(Transformer):
    """A model built as Llama is."""

    model: LlamaBackbone


class LlamaBackbone(Backbone):
    """Embedding, equal blocks, a last norm."""

    embed_tokens: nn.Embedding
    layers: Sequence[LlamaLayer]  # an nn.ModuleList
    norm: Norm
    rotary_emb: Rotary


class LlamaLayer(Protocol):
    """One block."""

    self_attn: LlamaAttention
    mlp: LlamaMlp
    input_layernorm: Norm
    post_attention_layernorm: Norm


class LlamaAttention(Protocol):
    """Projections before and after attention."""

    head_dim: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear


class LlamaMlp(Protocol):
    """The gated perceptron of a block."""

    gate_proj: nn.Linear
    up_proj: nn.Linear
    down_proj: nn.Linear


class Norm(Protocol):
    """A root-mean-square norm."""

    weight: Tensor


class Rotary(Protocol):
    """Rotary embedding."""

    inv_freq: Tensor
