"""A lean forward pass and decoder for Qwen2, Llama and Mistral models, over the weights of the transformers module.

Training: one flat sequence of tokens without padding, in which siblings share one copy of their prompt; only
attention sees rows, in buckets of similar shape. Decoding: fused weights, one preallocated cache, no masks where all
prompts are equally long. Both are compared with the model's own forward pass when the policy is built.

Rotary embedding multiplies complex numbers: rows of the query and key weights are reordered so that the two
halves of each pair are neighbours, which leaves every inner product as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import LlamaBackbone, LlamaTransformer, Transformer
from .packing import Layout, buckets, lay_out, shared_prompts

if TYPE_CHECKING:
    from .config import CausalLMConfig

logger = logging.getLogger(__name__)

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def lean_for(lm: Transformer, config: CausalLMConfig) -> Lean | None:
    """Choose the lean forward pass where options and architecture allow it.

    :raises ValueError: when the options demand it and it cannot be had
    """
    if config.forward == "transformers":
        return None
    reason = _unfit(lm, config)
    if reason is None:
        model = cast("LlamaTransformer", lm)
        lean = Lean(model)
        worst = lean.disagreement(model)
        tolerance = 1e-6 if lm.dtype == torch.float64 else 1e-4  # transformers norms in float32 at best
        if worst <= tolerance:
            return lean
        reason = f"its logits differ from the model's own by {worst:.2g}"
        logger.warning("the lean forward pass is not used: %s", reason)
    if config.forward == "lean":
        raise ValueError(f"policy.forward: lean is impossible here: {reason}. Use auto or transformers")
    return None


def _unfit(lm: Transformer, config: CausalLMConfig) -> str | None:
    """Why a model cannot be computed leanly, or None."""
    name = type(lm).__name__
    if name not in ARCHITECTURES:
        return f"the architecture is {name}; it knows {', '.join(ARCHITECTURES)}"
    if config.model.lora or config.model.gradient_checkpointing:
        return "adapters and gradient checkpointing need transformers' own forward pass"
    if config.model.attention:
        return f"attention {config.model.attention!r} is asked for"
    if lm.dtype not in (torch.float32, torch.float64):
        return f"weights are {lm.dtype}; it computes in float32 or float64"
    if lm.device.type != "cpu" and config.forward == "auto":
        return "it is made for processors; on an accelerator transformers' kernels are better"
    settings = lm.config
    if (settings.rope_parameters or {}).get("rope_type", "default") != "default":
        return f"its rotary embedding is {settings.rope_parameters['rope_type']!r}, not the default one"
    if settings.hidden_act != "silu" or any(
        kind != "full_attention" for kind in getattr(settings, "layer_types", None) or ()
    ):
        return "it has another activation than silu, or windowed attention"
    if getattr(settings, "sliding_window", None) and getattr(settings, "use_sliding_window", True):
        return "its attention is windowed"
    layer = cast("LlamaTransformer", lm).model.layers[0]
    linears = (layer.self_attn.q_proj, layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.down_proj)
    if any(type(linear) is not nn.Linear for linear in linears) or layer.mlp.gate_proj.bias is not None:
        return "its linear layers are not plain"
    return None


class Lean:
    """The geometry of one model, and what can be computed with weights of that geometry."""

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

    def fits(self, backbone: LlamaBackbone) -> bool:
        """Whether the weights are here as plain tensors; sharded ones are not."""
        return type(backbone.embed_tokens.weight.data) is Tensor

    def states(self, backbone: LlamaBackbone, layout: Layout) -> Tensor:
        """The last states [M, d] before the tokens asked about, differentiable in the backbone's weights."""
        flat = Flat.of(layout)
        if not len(flat.tokens):
            return backbone.embed_tokens.weight.new_zeros((0, backbone.embed_tokens.weight.shape[1]))
        rotation = self.rotation[flat.positions, None]
        x = F.embedding(flat.tokens, backbone.embed_tokens.weight, backbone.embed_tokens.padding_idx)
        last = len(backbone.layers) - 1
        for index, layer in enumerate(backbone.layers):
            attention, mlp = layer.self_attn, layer.mlp
            h = rms_norm(x, layer.input_layernorm.weight, self.eps)
            q = self._rotate(F.linear(h, *self._paired(attention.q_proj, self.heads)), self.heads, rotation)
            k = self._rotate(F.linear(h, *self._paired(attention.k_proj, self.kv_heads)), self.kv_heads, rotation)
            v = F.linear(h, attention.v_proj.weight, attention.v_proj.bias)
            mixed = self._attend(q, k, v, flat)
            if index == last:  # from here on tokens do not see each other: only those asked for go on
                mixed, x = mixed.index_select(0, flat.wanted), x.index_select(0, flat.wanted)
            x = x + F.linear(mixed, attention.o_proj.weight, attention.o_proj.bias)
            h = rms_norm(x, layer.post_attention_layernorm.weight, self.eps)
            gated = F.silu(F.linear(h, mlp.gate_proj.weight)) * F.linear(h, mlp.up_proj.weight)
            x = x + F.linear(gated, mlp.down_proj.weight)
        return rms_norm(x, backbone.norm.weight, self.eps).index_select(0, flat.answers)

    def snapshot(self, transformer: LlamaTransformer) -> Fused:
        """Copy the weights into the form the decoder uses."""
        return Fused.of(transformer, self)

    def decoder(self, fused: Fused) -> LeanDecoder:
        """Start one batch on copied weights."""
        return LeanDecoder(fused, self)

    def disagreement(self, lm: LlamaTransformer) -> float:
        """Largest difference of logits to the model's own forward pass, training and decoding, on random tokens."""
        generator = torch.Generator().manual_seed(0)
        vocabulary = lm.get_output_embeddings().weight.shape[0]
        tokens = torch.randint(vocabulary, (3, 9), generator=generator)
        tokens[1, :4] = tokens[0, :4]
        trained = torch.arange(9)[None] >= torch.tensor([[4], [4], [6]])
        with torch.no_grad():
            expected = lm(input_ids=tokens.to(lm.device), use_cache=False).logits
            layout = lay_out({"tokens": tokens, "asked": trained}, lm.device)
            found = lm.get_output_embeddings()(self.states(lm.model, layout))
            worst = (found - expected[layout.rows, layout.places - 1]).abs().max().item()
            decoder = self.decoder(self.snapshot(lm))
            prompts = [tuple(tokens[0, :4].tolist()), tuple(tokens[2, :6].tolist())]
            steps = [decoder.read(prompts, [0, 0, 1], 3)]
            steps += [
                decoder.step(torch.stack([tokens[0, 4 + i], tokens[1, 4 + i], tokens[2, 6 + i]]).to(lm.device))
                for i in range(2)
            ]
            for place, logits in enumerate(steps):
                own = torch.stack([expected[0, 3 + place], expected[1, 3 + place], expected[2, 5 + place]])
                worst = max(worst, (logits - own).abs().max().item())
        return worst / max(1.0, expected.abs().max().item())

    def _paired(self, linear: nn.Linear, heads: int) -> tuple[Tensor, Tensor | None]:
        """A projection's weight and bias with the two halves of each rotated pair made neighbours."""
        return paired(linear.weight, heads), None if linear.bias is None else paired(linear.bias, heads)

    def _rotate(self, projected: Tensor, heads: int, rotation: Tensor) -> Tensor:
        pairs = torch.view_as_complex(projected.view(len(projected), heads, self.head_dim // 2, 2))
        return torch.view_as_real(pairs * rotation).flatten(1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, flat: Flat) -> Tensor:
        """Attention of every flat token to its own row, [N, H * D]."""
        mixed = []
        for job in flat.jobs:
            queries = q.index_select(0, job.queries).view(*job.shape_of_queries, self.heads, self.head_dim)
            keys, values = (
                part.index_select(0, job.keys).view(*job.shape_of_keys, self.kv_heads, self.head_dim).transpose(1, 2)
                for part in (k, v)
            )
            seen = F.scaled_dot_product_attention(
                queries.transpose(1, 2),
                keys,
                values,
                attn_mask=None if job.mask is None else job.mask.to(q.dtype),
                is_causal=job.mask is None,
                enable_gqa=self.heads != self.kv_heads,
            )
            mixed.append(seen.transpose(1, 2).reshape(-1, self.heads * self.head_dim))
        return (mixed[0] if len(mixed) == 1 else torch.cat(mixed)).index_select(0, flat.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One rectangular call of attention: rows of queries, each with its row of keys."""

    queries: Tensor  # [R * Q] flat tokens; padding points at token 0 and is never read back
    keys: Tensor  # [R * K]
    shape_of_queries: tuple[int, int]
    shape_of_keys: tuple[int, int]
    mask: Tensor | None  # [R, 1, Q, K] or [Q, K] float32, added to the scores; None: causal and square


@dataclass(frozen=True, slots=True, kw_only=True)
class Flat:
    """A batch as one sequence of the ``N`` different tokens that must be computed."""

    tokens: Tensor  # [N]
    positions: Tensor  # [N] place in the row
    jobs: tuple[Job, ...]
    slots: Tensor  # [N] where the jobs' joined outputs hold each token
    wanted: Tensor  # [W] tokens whose last state is asked for
    answers: Tensor  # [M] which of these belongs to each token asked about

    @classmethod
    def of(cls, layout: Layout) -> Flat:
        """Lay a batch out: prompts that several rows share once, then everything else row by row."""
        device = layout.tokens.device
        lengths, prompts = np.array(layout.lengths), np.array(layout.prompts)
        owners = np.array(shared_prompts(layout), dtype=np.int64)
        owners = np.where(prompts > 0, owners, np.arange(len(owners)))
        sharing = np.bincount(owners[lengths > 0], minlength=len(owners)) > 1
        # where[b, t]: flat index of a row's token
        where = np.zeros((len(lengths), max(lengths.max(initial=0), 1)), dtype=np.int64)
        count, rows_of, places_of = 0, [], []
        for row, (length, prompt, owner) in enumerate(zip(lengths, prompts, owners, strict=True)):
            first = 0 if owner == row else prompt
            if owner != row:
                where[row, :prompt] = where[owner, :prompt]
            where[row, first:length] = np.arange(count, count + length - first)
            rows_of.append(np.full(length - first, row))
            places_of.append(np.arange(first, length))
            count += length - first
        rows_flat, places_flat = np.concatenate(rows_of), np.concatenate(places_of)

        alone = [row for row in range(len(lengths)) if lengths[row] and not sharing[owners[row]]]
        shared = [row for row in range(len(lengths)) if lengths[row] and sharing[owners[row]]]
        spans = [(row, 0, int(lengths[row])) for row in alone]  # (row, first query, end)
        spans += [(row, 0, int(prompts[row])) for row in shared if owners[row] == row]
        tails = [(row, int(prompts[row]), int(lengths[row])) for row in shared if lengths[row] > prompts[row]]
        jobs, slots, offset = [], np.zeros(count, dtype=np.int64), 0
        for group in [*_alike(spans), *_alike(tails)]:
            job, width = _job(group, where, device)
            jobs.append(job)
            for place, (row, first, end) in enumerate(group):
                slots[where[row, first:end]] = offset + width * place + np.arange(end - first)
            offset += width * len(group)
        before = where[layout.rows.cpu().numpy(), layout.places.cpu().numpy() - 1]
        wanted, answers = np.unique(before, return_inverse=True)

        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        rows, places = moved(rows_flat), moved(places_flat)
        return cls(
            tokens=layout.tokens[rows, places],
            positions=places,
            jobs=tuple(jobs),
            slots=moved(slots),
            wanted=moved(wanted),
            answers=moved(answers),
        )


Span = tuple[int, int, int]


def _alike(spans: Sequence[Span]) -> list[list[Span]]:
    """Group spans so that padding queries and keys adds little."""
    groups = []
    for by_keys in buckets([end for _, _, end in spans], waste=0.5):
        some = [spans[place] for place in by_keys]
        groups += [
            [some[place] for place in by_queries] for by_queries in buckets([e - f for _, f, e in some], waste=0.25)
        ]
    return groups


def _job(group: Sequence[Span], where: np.ndarray, device: torch.device) -> tuple[Job, int]:
    width = max(end - first for _, first, end in group)
    reach = max(end for _, _, end in group)
    queries, keys = np.zeros((len(group), width), dtype=np.int64), np.zeros((len(group), reach), dtype=np.int64)
    for place, (row, first, end) in enumerate(group):
        queries[place, : end - first] = where[row, first:end]
        keys[place, :end] = where[row, :end]
    firsts = sorted({first for _, first, _ in group})
    mask = None
    if firsts != [0]:
        starts = torch.tensor(firsts if len(firsts) == 1 else [first for _, first, _ in group])
        seen = torch.arange(reach) <= starts[:, None, None] + torch.arange(width)[:, None]
        mask = torch.zeros(seen.shape).masked_fill_(~seen, float("-inf"))
        mask = mask[0] if len(firsts) == 1 else mask[:, None]
        mask = mask.to(device)
    job = Job(
        queries=torch.from_numpy(queries.ravel()).to(device),
        keys=torch.from_numpy(keys.ravel()).to(device),
        shape_of_queries=queries.shape,
        shape_of_keys=keys.shape,
        mask=mask,
    )
    return job, width


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
    def of(cls, transformer: LlamaTransformer, lean: Lean) -> Fused:
        """Copy and fuse."""
        layers = []
        with torch.no_grad():
            for layer in transformer.model.layers:
                attention, mlp = layer.self_attn, layer.mlp
                parts = [(attention.q_proj, lean.heads), (attention.k_proj, lean.kv_heads)]
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

    def __init__(self, fused: Fused, lean: Lean):
        self._fused, self._lean = fused, lean

    def read(self, prompts: Sequence[tuple[int, ...]], rows: Sequence[int], room: int) -> Tensor:
        lean, device = self._lean, self._fused.embedding.device
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
            (len(self._fused.layers), len(rows), 2, lean.kv_heads, width + min(room, 64), lean.head_dim)
        )
        x = F.embedding(tokens, self._fused.embedding)
        heads, shared = lean.heads, lean.heads // lean.kv_heads
        for layer, cache in zip(self._fused.layers, self._cache, strict=True):
            qkv = self._project(x, layer, lean.rotation[positions, None])
            padded = qkv if even else qkv.index_select(0, gather)
            padded = padded.view(len(prompts), width, -1, lean.head_dim)
            cache[..., :width, :] = (
                padded[owners, :, heads:].view(len(rows), width, 2, lean.kv_heads, -1).permute(0, 2, 3, 1, 4)
            )
            q, k, v = padded.transpose(1, 2).split([heads, lean.kv_heads, lean.kv_heads], dim=1)
            seen = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared > 1
            )
            seen = seen.transpose(1, 2).reshape(len(prompts) * width, -1)
            x = self._finish(x, seen if even else seen.index_select(0, back), layer)
        x = x[torch.from_numpy(ends - 1).to(device)]
        return self._logits(x)[owners]

    def step(self, tokens: Tensor) -> Tensor:
        lean, fused = self._lean, self._fused
        if self._filled == self._cache.shape[-2]:
            self._grow(len(tokens))
        here, rows = self._filled, len(tokens)
        self._filled = end = here + 1
        mask = None
        if self._starts is None:
            rotation = lean.rotation[here]
        else:
            rotation = lean.rotation[here - self._starts, None]
            early = torch.arange(end, device=tokens.device) < self._starts[:, None, None, None]
            mask = torch.zeros(early.shape, dtype=fused.embedding.dtype, device=tokens.device)
            mask.masked_fill_(early, float("-inf"))
        x = F.embedding(tokens, fused.embedding)
        shape = (rows, lean.kv_heads, lean.heads // lean.kv_heads, lean.head_dim)
        for layer, cache in zip(fused.layers, self._cache, strict=True):
            qkv = self._project(x, layer, rotation)
            cache[:rows, :, :, here] = qkv[:, lean.heads :].view(rows, 2, lean.kv_heads, lean.head_dim)
            past = cache[:rows, :, :, :end]
            seen = F.scaled_dot_product_attention(
                qkv[:, : lean.heads].view(shape), past[:, 0], past[:, 1], attn_mask=mask
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
        lean = self._lean
        h = F.rms_norm(x, x.shape[-1:], None, lean.eps)
        qkv = h @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, h, layer.qkv)
        qkv = qkv.view(len(x), -1, lean.head_dim)
        turning = qkv[:, : lean.heads + lean.kv_heads]
        torch.view_as_complex(turning.unflatten(-1, (-1, 2))).mul_(rotation)
        return qkv

    def _finish(self, x: Tensor, seen: Tensor, layer: FusedLayer) -> Tensor:
        x = torch.addmm(x, seen, layer.out)
        gate, up = (F.rms_norm(x, x.shape[-1:], None, self._lean.eps) @ layer.gate_up).chunk(2, dim=-1)
        return torch.addmm(x, F.silu(gate).mul_(up), layer.down)

    def _logits(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], None, self._lean.eps) @ self._fused.head

    def _grow(self, rows: int) -> None:
        """Make room for half as many tokens again; rows that have finished are left behind."""
        old = self._cache
        size = old.shape[-2] + max(16, min(old.shape[-2] // 2, self._room))
        self._cache = old.new_empty((old.shape[0], rows, *old.shape[2:4], size, old.shape[-1]))
        self._cache[..., : old.shape[-2], :] = old[:, :rows]


def paired(weight: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows from (first halves, second halves) to neighbouring pairs."""
    halves = weight.unflatten(0, (heads, 2, -1))
    return halves.transpose(1, 2).reshape(weight.shape)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise rows [N, d] by their root mean square (Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4)."""
    return _RmsNorm.apply(x, weight, eps)


class _RmsNorm(torch.autograd.Function):
    """Keeps one number per row for the backward pass; half the time of the composed operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1] + eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        # y = w n with n = x s: dx = s (w g - n mean(w g n)), dw = sum over rows of g n
        x, weight, scale = ctx.saved_tensors
        normal = x * scale
        product = grad * normal
        along = (product @ weight).mul_(scale[:, 0]).div_(-x.shape[-1])
        return (grad * weight).mul_(scale).addcmul_(normal, along[:, None]), product.sum(0), None
