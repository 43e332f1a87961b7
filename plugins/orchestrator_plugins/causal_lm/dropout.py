"""Dropout is off: the log-probabilities of acting and of training must be those of one function."""

from __future__ import annotations

from typing import Any

import torch

from .architecture import Transformer


def silence_dropout(lm: Transformer) -> None:
    """Set every dropout to 0, that of modules and the shares that other modules hand to functions, layer drop among them."""
    module: Any  # attributes by architecture
    for module in lm.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, share in list(vars(module).items()):
            if isinstance(share, float) and "drop" in name.lower():
                setattr(module, name, 0.0)


def check_steady(lm: Transformer) -> None:
    """Make sure that a model in training mode, which gradient checkpointing needs, computes what it computes otherwise.

    :raises ValueError: it draws something at random, or is another function then
    """
    ids = torch.arange(8, device=lm.device)[None] % lm.get_output_embeddings().weight.shape[0]
    training = lm.training
    with torch.no_grad(), torch.random.fork_rng(devices=[lm.device] if lm.device.type == "cuda" else []):
        calm = lm.eval()(input_ids=ids, use_cache=False).logits.float()
        moved = lm.train()(input_ids=ids, use_cache=False).logits.float()
    lm.train(training)
    difference = (moved - calm).abs().max().item()
    if not difference <= torch.finfo(lm.dtype).eps ** 0.5 * max(1.0, calm.abs().max().item()):
        settings = lm.config.get_text_config().to_dict()
        shares = [f"{name}: {value}" for name, value in sorted(settings.items()) if "drop" in name and value]
        raise ValueError(
            f"{type(lm).__name__} computes other logits in training mode (they differ by {difference:.2g}): it has dropout or "
            "other noise that this policy cannot turn off. Set what its config.json says of it to 0"
            + (f" ({', '.join(shares)})" if shares else "")
        )
