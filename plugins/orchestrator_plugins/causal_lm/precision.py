"""Reduced precision: what is trained stays in float32, what is computed is bfloat16.

A step of AdamW moves a weight by about the learning rate. A bfloat16 weight has 8 bits: a step smaller than 1/512 of it is lost in
rounding, so weights of 0.1 do not move at learning rates below 2e-4. Therefore trained weights are float32 masters, and the
policy is what their rounding to bfloat16 computes: by autocast where gradients are needed, with a rounded copy where it acts.
Gradients, moments, references and checkpoints are float32. Below adapters the base is frozen and stays in bfloat16; peft keeps the
adapters in float32. float16 needs its losses scaled, which is not done here, and is refused.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from .config import NO_FLOAT16, ModelConfig

COARSE = (torch.bfloat16, torch.float16)


def read_in(config: ModelConfig) -> str:
    """What a model's weights are read in: masters as precisely as they are stored.

    Masters that begin at bfloat16 numbers compute what they did until a step has carried them half way to the next.
    """
    return "float32" if config.dtype == "bfloat16" and config.lora is None else config.dtype


def keep_masters(lm: nn.Module, *, adapters: bool, asked: str) -> torch.dtype | None:
    """Give a model that computes in reduced precision float32 weights, in place, where they are trained.

    :param adapters: the model's own weights are frozen below adapters, and stay as they are
    :param asked: ``model.dtype``
    :returns: what is computed in; None: what the weights are in
    :raises ValueError: the model is of float16
    """
    coarse = next((p.dtype for p in lm.parameters() if p.dtype in COARSE), None)
    if coarse is torch.float16:
        raise ValueError(f"policy.model.dtype: {NO_FLOAT16}")
    if adapters:
        return None
    compute = coarse or (torch.bfloat16 if asked == "bfloat16" else None)
    if compute is None:
        return None
    lm.float()
    for module in lm.modules():
        if isinstance(module, nn.Embedding):  # autocast leaves them alone: the residual stream would be float32
            module.register_forward_hook(_round)
    return compute


def computing(compute: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Compute in a reduced precision with float32 weights for the block; None: as the weights are."""
    return nullcontext() if compute is None else torch.autocast(device.type, dtype=compute)


def _round(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output.to(torch.bfloat16)
