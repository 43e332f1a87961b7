"""From options to a model and its rendering: presets are built, paths are loaded, adapters are added."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, cast

import torch

from .architecture import Transformer
from .config import NO_PEFT, LoraConfig, ModelConfig
from .dropout import check_steady, silence_dropout
from .precision import computing, keep_masters, read_in
from .presets import folder_of
from .pretrained import pretrained
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
    compute: torch.dtype | None  # what float32 weights compute in; None: what they are in


def load(config: ModelConfig, device: torch.device) -> Loaded:
    """Build or load the model.

    :raises FileNotFoundError: when a folder holds no model
    :raises OSError: when a hub model can be had neither from the cache nor from the network
    :raises ImportError: when a package is missing that the options need
    :raises ValueError: when its weights are float16
    """
    if config.preset == "tiny":
        tokenizer = CharacterTokenizer(config.words)
        lm = cast("Transformer", build_tiny(config, tokenizer))
        if read_in(config) != "auto":
            lm = lm.to(getattr(torch, read_in(config)))
        renderer = Renderer(PlainRendering(tokenizer))
    else:
        tokenizer, lm = _read(config)
        renderer = Renderer(rendering_of(tokenizer, _stops(lm)))
    context = _window(lm)
    silence_dropout(lm)
    compute = keep_masters(lm, adapters=config.lora is not None, asked=config.dtype)
    lm = lm.to(device).eval()
    with computing(compute, device):
        check_steady(lm)
    if config.lora is not None:
        lm = _with_adapters(lm, config.lora)
    if config.gradient_checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if config.lora is not None:
            lm.enable_input_require_grads()
        lm.train()  # transformers recomputes in training mode only; dropout is off either way
    return Loaded(lm=lm, tokenizer=tokenizer, renderer=renderer, context=context, compute=compute)


def _read(config: ModelConfig) -> tuple[Any, Transformer]:
    """Read a model that is somewhere already: packaged, at a path, on a hub."""
    if config.preset is not None:
        return pretrained(str(folder_of(config.preset)), dtype=read_in(config), attention=config.attention)
    assert config.path is not None
    return pretrained(
        config.path,
        dtype=read_in(config),
        gguf=config.gguf,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        attention=config.attention,
    )


def _window(lm: Transformer) -> int:
    """Tokens the model can take in; of one that says no limit, as recurrent ones, more than any text has."""
    settings = lm.config.get_text_config()
    said = (getattr(settings, name, None) for name in ("max_position_embeddings", "context_length", "n_positions"))
    return next((number for number in said if isinstance(number, int) and number > 0), _ENDLESS)


def _stops(lm: Transformer) -> list[int]:
    """Ids that end a text according to the model's generation settings."""
    stops = getattr(lm.generation_config, "eos_token_id", None)
    return [] if stops is None else list(stops) if isinstance(stops, list | tuple) else [stops]


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
