"""From options to a model and its rendering: presets are built, paths are loaded, adapters are added."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from .architecture import Transformer
from .config import NO_PEFT, LoraConfig, ModelConfig, looks_local, missing_model
from .rendering import PlainRendering, Renderer
from .templates import rendering_of
from .tiny import build_tiny
from .tokenizer import CharacterTokenizer

_ENDLESS = 2**30  # tokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model ready to act and train."""

    lm: Transformer  # a transformers model, or peft's wrapper of one
    tokenizer: Any  # has save (presets) or save_pretrained (transformers)
    renderer: Renderer
    context: int  # most tokens of one rollout


def load(config: ModelConfig, device: torch.device) -> Loaded:
    """Build or load the model.

    :raises FileNotFoundError: when a folder holds no model
    :raises OSError: when a hub model can be had neither from the cache nor from the network
    :raises ImportError: when adapters are asked for and peft is not installed
    """
    if config.preset is not None:
        tokenizer = CharacterTokenizer(config.words)
        lm = cast("Transformer", build_tiny(config, tokenizer))
        if config.dtype != "auto":
            lm = lm.to(getattr(torch, config.dtype))
        renderer = Renderer(PlainRendering(tokenizer))
    else:
        tokenizer, lm = _from_path(config)
        renderer = Renderer(rendering_of(tokenizer, _stops(lm)))
    context = _window(lm)
    _silence_dropout(lm)
    lm = lm.to(device).eval()
    if config.lora is not None:
        lm = _with_adapters(lm, config.lora)
    if config.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.lora is not None:
            lm.enable_input_require_grads()
        lm.train()  # transformers recomputes in training mode only; dropout is off either way
    return Loaded(lm=lm, tokenizer=tokenizer, renderer=renderer, context=context)


def _from_path(config: ModelConfig) -> tuple[Any, Transformer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert config.path is not None
    name = str(Path(config.path).expanduser()) if looks_local(config.path) else config.path
    if looks_local(config.path) and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(f"policy.model.path: {missing_model(config.path)}")
    common = {"revision": config.revision or "main", "trust_remote_code": config.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **common)
        lm = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=config.dtype if config.dtype == "auto" else getattr(torch, config.dtype),
            **({"attn_implementation": config.attention} if config.attention else {}),
            **common,
        )
    except OSError as error:
        offline = (
            " HF_HUB_OFFLINE is set, so only the local cache was searched." if os.environ.get("HF_HUB_OFFLINE") else ""
        )
        error.add_note(
            f"policy.model.path: could not load {config.path!r}.{offline} Expected a folder with config.json, weights "
            "and tokenizer files, or the name of a hub model that is cached or reachable"
        )
        raise
    return tokenizer, cast("Transformer", lm)


def _window(lm: Transformer) -> int:
    """Tokens the model can take in; of one that says no limit, as recurrent ones, more than any text has."""
    settings = lm.config.get_text_config()
    said = (getattr(settings, name, None) for name in ("max_position_embeddings", "context_length", "n_positions"))
    return next((number for number in said if isinstance(number, int) and number > 0), _ENDLESS)


def _stops(lm: Transformer) -> list[int]:
    """Ids that end a text according to the model's generation settings."""
    stops = getattr(lm.generation_config, "eos_token_id", None)
    return [] if stops is None else list(stops) if isinstance(stops, list | tuple) else [stops]


def _silence_dropout(lm: Transformer) -> None:
    """Set every dropout to 0: the log-probabilities of acting and of training must be those of one function."""
    module: Any  # attributes by architecture
    for module in lm.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _with_adapters(lm: Transformer, config: LoraConfig) -> Transformer:
    try:
        from peft import LoraConfig as PeftLoraConfig
        from peft import get_peft_model
    except ImportError as error:
        raise ImportError(f"policy.model.lora: {NO_PEFT}") from error
    alpha: Any = config.alpha  # peft declares whole numbers and takes any
    settings = PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=config.targets if isinstance(config.targets, str) else list(config.targets),
        use_rslora=config.rank_stabilised,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # equal options give equal adapters
        adapted: Any = get_peft_model(cast("Any", lm), settings)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    logger.info("adapters of rank %d: %d trained parameters", config.rank, trained)
    return adapted.eval()
