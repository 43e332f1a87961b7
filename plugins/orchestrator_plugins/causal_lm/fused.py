"""Decoding without padding and waste: fused weights, one preallocated cache, no masks where prompts are equally long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .architecture import LlamaTransformer
from .geometry import Geometry, paired


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedLayer:
    """One block's weights, transposed for ``addmm``; the norms' weights are folded into what follows them."""

    qkv: Tensor  # [d, (H + 2 K) * D]
    qkv_bias: Tensor | None
    out: Tensor  # [H * D, d]
    gate_up: Tensor  # [d, 2 * mlp]
    down: Tensor  # [mlp, d]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """A copy of a model's weights in the form the decoder uses."""

    embedding: Tensor  # [V, d]
    layers: tuple[FusedLayer, ...]
    head: Tensor  # [d, V]

    @classmethod
    def of(cls, transformer: LlamaTransformer, geometry: Geometry) -> Fused:
        """Copy and fuse."""
        layers = []
        with torch.no_grad():
            for layer in transformer.model.layers:
                attention, mlp = layer.self_attn, layer.mlp
                parts = [(attention.q_proj, geometry.heads), (attention.k_proj, geometry.kv_heads)]
                qkv = torch.cat([*(paired(p.weight, heads) for p, heads in parts), attention.v_proj.weight])
                bias = None
                if attention.q_proj.bias is not None:
                    bias = torch.cat([*(paired(p.bias, heads) for p, heads in parts), attention.v_proj.bias])
                gate_up = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
                layers.append(
                    FusedLayer(
                        qkv=(qkv * layer.input_layernorm.weight).t().contiguous(),
                        qkv_bias=bias,
                        out=attention.o_proj.weight.t().contiguous(),
                        gate_up=(gate_up * layer.post_attention_layernorm.weight).t().contiguous(),
                        down=mlp.down_proj.weight.t().contiguous(),
                    )
                )
            head = transformer.get_output_embeddings().weight * transformer.model.norm.weight
            embedding = transformer.get_input_embeddings().weight.detach().clone()
            return cls(embedding=embedding, layers=tuple(layers), head=head.t().contiguous())


class LeanDecoder:
    """A batch in progress. Rows end at the same place of the cache; shorter prompts start later in it."""

    def __init__(self, fused: Fused, geometry: Geometry):
        self._fused, self._geometry = fused, geometry

    def read(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], room: int) -> Tensor:
        geometry, device = self._geometry, self._fused.embedding.device
        lengths = np.array([len(prompt) for prompt in prompts])
        width = int(lengths.max())
        ends = np.cumsum(lengths)
        # [P, W] flat index of each prompt's tokens, right-aligned; what stands before a prompt points at its first
        index = np.maximum(np.arange(width) - width + ends[:, None], (ends - lengths)[:, None])
        even = bool((lengths == width).all())
        mask = None
        if not even:
            start = torch.from_numpy(width - lengths)[:, None, None]
            place = torch.arange(width)
            seen = (place <= place[:, None]) & ((place >= start) | (place == place[:, None]))
            mask = torch.zeros(seen.shape, dtype=self._fused.embedding.dtype).masked_fill_(~seen, float("-inf"))
            mask = mask[:, None].to(device)
        tokens = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        positions = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths])).to(device)
        gather = torch.from_numpy(index.ravel()).to(device)
        back = torch.from_numpy(
            np.concatenate([np.arange(width - n, width) + p * width for p, n in enumerate(lengths)])
        ).to(device)
        owners = torch.tensor(rows, device=device)
        self._filled, self._room = width, room
        self._starts = None if even else torch.from_numpy(width - lengths).to(device)[owners]
        self._cache = self._fused.embedding.new_empty(
            (len(self._fused.layers), len(rows), 2, geometry.kv_heads, width + min(room, 64), geometry.head_dim)
        )
        x = F.embedding(tokens, self._fused.embedding)
        heads, shared = geometry.heads, geometry.heads // geometry.kv_heads
        for layer, cache in zip(self._fused.layers, self._cache, strict=True):
            qkv = self._project(x, layer, geometry.rotation[positions, None])
            padded = qkv if even else qkv.index_select(0, gather)
            padded = padded.view(len(prompts), width, -1, geometry.head_dim)
            cache[..., :width, :] = (
                padded[owners, :, heads:].view(len(rows), width, 2, geometry.kv_heads, -1).permute(0, 2, 3, 1, 4)
            )
            q, k, v = padded.transpose(1, 2).split([heads, geometry.kv_heads, geometry.kv_heads], dim=1)
            seen = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared > 1
            )
            seen = seen.transpose(1, 2).reshape(len(prompts) * width, -1)
            x = self._finish(x, seen if even else seen.index_select(0, back), layer)
        x = x[torch.from_numpy(ends - 1).to(device)]
        return self._logits(x)[owners]

    def step(self, tokens: Tensor) -> Tensor:
        geometry, fused = self._geometry, self._fused
        if self._filled == self._cache.shape[-2]:
            self._grow(len(tokens))
        here, rows = self._filled, len(tokens)
        self._filled = end = here + 1
        mask = None
        if self._starts is None:
            rotation = geometry.rotation[here]
        else:
            rotation = geometry.rotation[here - self._starts, None]
            early = torch.arange(end, device=tokens.device) < self._starts[:, None, None, None]
            mask = torch.zeros(early.shape, dtype=fused.embedding.dtype, device=tokens.device)
            mask.masked_fill_(early, float("-inf"))
        x = F.embedding(tokens, fused.embedding)
        shape = (rows, geometry.kv_heads, geometry.heads // geometry.kv_heads, geometry.head_dim)
        for layer, cache in zip(fused.layers, self._cache, strict=True):
            qkv = self._project(x, layer, rotation)
            cache[:rows, :, :, here] = qkv[:, geometry.heads :].view(rows, 2, geometry.kv_heads, geometry.head_dim)
            past = cache[:rows, :, :, :end]
            seen = F.scaled_dot_product_attention(
                qkv[:, : geometry.heads].view(shape), past[:, 0], past[:, 1], attn_mask=mask
            )
            x = self._finish(x, seen.reshape(rows, -1), layer)
        return self._logits(x)

    def keep(self, order: Tensor) -> None:
        target = torch.arange(len(order), device=order.device)
        moved = (order != target).nonzero()[:, 0]
        if len(moved):
            used = self._cache[..., : self._filled, :]
            used[:, moved] = used[:, order[moved]]
        if self._starts is not None:
            self._starts = self._starts[order]

    def _project(self, x: Tensor, layer: FusedLayer, rotation: Tensor) -> Tensor:
        """Queries, keys and values [N, H + 2 K, D], rotated."""
        geometry = self._geometry
        h = F.rms_norm(x, x.shape[-1:], None, geometry.eps)
        qkv = h @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, h, layer.qkv)
        qkv = qkv.view(len(x), -1, geometry.head_dim)
        turning = qkv[:, : geometry.heads + geometry.kv_heads]
        torch.view_as_complex(turning.unflatten(-1, (-1, 2))).mul_(rotation)
        return qkv

    def _finish(self, x: Tensor, seen: Tensor, layer: FusedLayer) -> Tensor:
        x = torch.addmm(x, seen, layer.out)
        gate, up = (F.rms_norm(x, x.shape[-1:], None, self._geometry.eps) @ layer.gate_up).chunk(2, dim=-1)
        return torch.addmm(x, F.silu(gate).mul_(up), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], None, self._geometry.eps) @ self._fused.head

    def _grow(self, rows: int) -> None:
        """Make room for half as many tokens again; rows that have finished are left behind."""
        old = self._cache
        size = old.shape[-2] + max(16, min(old.shape[-2] // 2, self._room))
        self._cache = old.new_empty((old.shape[0], rows, *old.shape[2:4], size, old.shape[-1]))
        self._cache[..., : old.shape[-2], :] = old[:, :rows]
