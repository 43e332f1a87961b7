"""A lean forward pass and decoder for Qwen2, Llama and Mistral models, over the weights of the transformers module.

Training: one flat sequence of tokens without padding, in which siblings share one copy of their prompt; only
attention sees rows, in buckets of similar shape (``flat.py``). Decoding: fused weights and one preallocated cache
(``fused.py``). Both are compared with the model's own forward pass when the policy is built.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .architecture import LlamaBackbone, LlamaTransformer, Transformer
from .flat import Flat
from .fused import Fused, LeanDecoder
from .geometry import Geometry, paired
from .packing import Layout, lay_out

if TYPE_CHECKING:
    from .config import CausalLMConfig

logger = logging.getLogger(__name__)

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def lean_for(lm: Transformer, config: CausalLMConfig, compute: torch.dtype | None) -> Lean | None:
    """Choose the lean forward pass where options and architecture allow it.

    :param compute: what float32 weights compute in; None: what they are in
    :raises ValueError: when the options demand it and it cannot be had
    """
    if config.forward == "transformers":
        return None
    reason = _unfit(lm, config, compute or lm.dtype)
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


def _unfit(lm: Transformer, config: CausalLMConfig, dtype: torch.dtype) -> str | None:
    """Why a model cannot be computed leanly, or None."""
    name = type(lm).__name__
    if name not in ARCHITECTURES:
        return f"the architecture is {name}; it knows {', '.join(ARCHITECTURES)}"
    if config.model.lora or config.model.gradient_checkpointing:
        return "adapters and gradient checkpointing need transformers' own forward pass"
    if config.model.attention:
        return f"attention {config.model.attention!r} is asked for"
    if dtype not in (torch.float32, torch.float64):
        return f"the model computes in {dtype}; it knows float32 and float64"
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


class Lean(Geometry):
    """The geometry of one model, and what can be computed with weights of that geometry."""

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
