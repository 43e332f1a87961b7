"""The sizes of a model built as Llama is, and its rotation of queries and keys as complex numbers.

Rotary embedding multiplies complex numbers: rows of the query and key weights are reordered so that the two
halves of each pair are neighbours, which leaves every inner product as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .architecture import LlamaTransformer


class Geometry:
    """What weights of one model have in common, whoever holds them."""

    def __init__(self, lm: LlamaTransformer):
        attention, settings = lm.model.layers[0].self_attn, lm.config
        self.heads: int = settings.num_attention_heads
        self.kv_heads: int = settings.num_key_value_heads
        self.head_dim = attention.head_dim
        self.eps: float = settings.rms_norm_eps
        positions = torch.arange(settings.max_position_embeddings, dtype=torch.float32)
        angles = positions[:, None] * lm.model.rotary_emb.inv_freq.float().cpu()
        rotation = torch.complex(angles.cos(), angles.sin())
        wide = lm.dtype == torch.float64
        self.rotation = rotation.to(lm.device, torch.complex128 if wide else torch.complex64)  # [positions, D / 2]


def paired(weight: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows from (first halves, second halves) to neighbouring pairs."""
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(weight.shape)
