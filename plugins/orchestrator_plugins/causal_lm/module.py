"""The one module that is optimised, sharded and checkpointed: a language model, and a critic where one is needed."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from orchestrator.api import Column

from .architecture import Backbone, Transformer
from .packing import Layout, buckets
from .precision import computing
from .statistics import token_statistics


class CausalLMModule(nn.Module):
    """A transformers causal language model under ``lm`` and its critic, if any, under ``critic``.

    Statistics are computed inside ``forward`` so that wrappers which gather sharded weights around it work.
    Its state dict spells the model's weights as transformers does, so a saved one is a model transformers loads.
    With adapters it holds what is trained only: the frozen base is where it was loaded from.
    """

    def __init__(self, lm: nn.Module, lean: Any | None = None, compute: torch.dtype | None = None):
        """Wrap a model.

        :param lean: a packed forward pass over its weights, for architectures that have one
        :param compute: what float32 weights compute in; None: what they are in
        """
        super().__init__()
        self.lm = lm
        self.critic: Critic | None = None
        self._lean, self.compute = lean, compute
        self.register_state_dict_post_hook(_spell_plainly)
        self.register_load_state_dict_pre_hook(_spell_fully)

    @property
    def transformer(self) -> Transformer:
        """The transformers model itself, adapters injected where there are any."""
        wrapped: Any = self.lm
        return cast("Transformer", wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped)

    def computing(self) -> AbstractContextManager[Any]:
        """Compute for the block in the precision that the policy is of."""
        return computing(self.compute, next(self.parameters()).device)

    @property
    def left_out(self) -> frozenset[str]:
        """Names that the state leaves out: beside adapters, every weight of the base model, tied ones by each name."""
        if self.transformer is self.lm:
            return frozenset()
        every = self.named_parameters(remove_duplicate=False)
        return frozenset(name.removeprefix("lm.") for name, parameter in every if not parameter.requires_grad)

    def add_critic(self, kind: str) -> None:
        """Add what predicts values: a ``head`` on the model's states, or a ``separate`` copy of it with a head."""
        transformer = self.transformer
        backbone = copy.deepcopy(backbone_of(transformer)) if kind == "separate" else None
        first = next(transformer.parameters())
        width = transformer.get_output_embeddings().weight.shape[1]
        self.critic = Critic(width, backbone, lean=self._lean if kind == "separate" else None)
        self.critic.score.to(first.device, torch.float64 if first.dtype == torch.float64 else torch.float32)

    def forward(self, layout: Layout, wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        """Statistics of the tokens asked about, [M] each, ``LOGITS`` [M, V]."""
        with self.computing():
            return self._statistics(layout, wanted)

    def _statistics(self, layout: Layout, wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        found: dict[Column, Tensor] = {}
        own_states = Column.VALUE in wanted and self.critic is not None and self.critic.backbone is None
        if wanted - {Column.VALUE} or own_states:
            transformer = self.transformer
            states = states_before(backbone_of(transformer), layout, self._lean)
            found |= token_statistics(
                states,
                lambda chosen: logits_of(transformer, chosen),
                layout.targets,
                layout.temperature,
                wanted,
                transformer.get_output_embeddings().weight.shape[0],
            )
        if Column.VALUE in wanted:
            if self.critic is None:
                raise RuntimeError("values are wanted but there is no critic; call prepare() with Column.VALUE first")
            found[Column.VALUE] = self.critic(states if own_states else None, layout)
        return found


class Critic(nn.Module):
    """Predicts the return from the state before a token. Starts at zero everywhere."""

    def __init__(self, width: int, backbone: Backbone | None, lean: Any | None):
        super().__init__()
        self.backbone = backbone
        self.score = nn.Linear(width, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self._lean = lean

    def forward(self, states: Tensor | None, layout: Layout) -> Tensor:
        """Values [M] of the states before the tokens asked about; a separate critic computes its own states."""
        if self.backbone is not None:
            states = states_before(self.backbone, layout, self._lean)
        assert states is not None  # given to a critic without a backbone
        with torch.autocast(states.device.type, enabled=False):
            return self.score(states.to(self.score.weight.dtype))[:, 0]


def _spell_plainly(module: CausalLMModule, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    left_out, inner = module.left_out, f"{prefix}lm."
    for name in list(state):
        tensor = state.pop(name)
        plain = prefix + name.removeprefix(inner) if name.startswith(inner) else name
        if plain.removeprefix(prefix) not in left_out:
            state[plain] = tensor


def _spell_fully(
    module: CausalLMModule, state: dict[str, Tensor], prefix: str, metadata: Any, strict: bool, *problems: list[str]
) -> None:
    own = {name for name, _ in module.named_parameters()} | {name for name, _ in module.named_buffers()}
    for name in list(state):
        plain = name.removeprefix(prefix)
        if plain not in own and not plain.startswith("critic."):
            state[f"{prefix}lm.{plain}"] = state.pop(name)
    if module.transformer is not module.lm:  # frozen weights stay what they are
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                state.setdefault(prefix + name, parameter.detach())


def backbone_of(transformer: Transformer) -> Backbone:
    """The part of a transformers model below its vocabulary head."""
    return transformer.base_model


def plain_weights(transformer: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every weight under the name transformers gives it, adapters merged in; tied ones under each name.

    vLLM, for one, keeps a head of its own even where it is tied to the embedding, and must be given it.
    """
    owners: dict[str, Any] = dict(transformer.named_modules())
    with torch.no_grad():
        for name, parameter in transformer.named_parameters(remove_duplicate=False):
            if ".lora_" in name:
                continue
            owner = owners[name.rpartition(".")[0].removesuffix(".base_layer")]
            if name.endswith(".base_layer.weight"):
                for adapter in owner.active_adapters:
                    parameter = parameter + owner.get_delta_weight(adapter)
            yield name.replace(".base_layer.", "."), parameter


def logits_of(transformer: Transformer, states: Tensor) -> Tensor:
    """Logits [M, V] of states [M, d], with the rescaling some architectures add after their head."""
    logits = transformer.get_output_embeddings()(states)
    config = transformer.config.get_text_config()
    if scale := getattr(config, "logits_scaling", None):  # Granite
        logits = logits / scale
    if scale := getattr(config, "logit_scale", None):  # Cohere
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    if cap:  # Gemma 2; RecurrentGemma
        logits = torch.tanh(logits / cap) * cap
    return logits


def states_before(backbone: Backbone, layout: Layout, lean: Any | None) -> Tensor:
    """The backbone's last states [M, d] at the tokens before those asked about."""
    if lean is not None and lean.fits(backbone):
        return lean.states(backbone, layout)
    tokens = layout.tokens
    groups = buckets(layout.lengths)
    starts = torch.zeros(len(tokens), dtype=torch.int64)
    pieces, offset = [], 0
    for group in groups:
        width = layout.lengths[group[0]]
        lengths = torch.tensor([layout.lengths[row] for row in group], device=tokens.device)
        present = torch.arange(width, device=tokens.device) < lengths[:, None]
        ids = tokens[torch.tensor(group, device=tokens.device), :width]
        output = backbone(input_ids=ids, attention_mask=present.long(), use_cache=False)
        pieces.append(output.last_hidden_state.flatten(0, 1))
        starts[torch.tensor(group)] = offset + width * torch.arange(len(group))
        offset += width * len(group)
    if not pieces:
        return tokens.new_zeros((0, backbone.get_input_embeddings().weight.shape[1]), dtype=backbone.dtype)
    return torch.cat(pieces).index_select(0, starts.to(tokens.device)[layout.rows] + layout.places - 1)


def check_head(transformer: Transformer) -> None:
    """Make sure that states through the head are the model's logits.

    :raises ValueError: for an architecture that does something else in between
    """
    device = next(transformer.parameters()).device
    ids = torch.arange(8, device=device)[None] % transformer.get_output_embeddings().weight.shape[0]
    with torch.no_grad():
        logits = transformer(input_ids=ids, use_cache=False).logits
        expected = logits.float()
        states = backbone_of(transformer)(input_ids=ids, use_cache=False).last_hidden_state
        difference = (logits_of(transformer, states).float() - expected).abs().max().item()
    fine = min(1e-2, torch.finfo(logits.dtype).eps ** 0.5)  # a soft cap moves small logits by little more
    if not difference <= fine * max(1.0, expected.abs().max().item()):
        raise ValueError(
            f"{type(transformer).__name__} computes its logits in a way this policy does not know: they differ by "
            f"{difference:.2g} from its head applied to its last states. Use another architecture"
        )
