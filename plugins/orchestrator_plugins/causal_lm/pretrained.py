"""Models and tokenizers as transformers reads them: from a folder, a hub or a GGUF file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers.utils import logging

from .architecture import Transformer
from .places import (
    NO_GGUF,
    looks_local,
    missing_attention,
    missing_gguf,
    missing_model,
    missing_on_hub,
    unreachable_hub,
)


def pretrained(
    path: str,
    *,
    dtype: str,
    gguf: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
) -> tuple[Any, Transformer]:
    """Load tokenizer and model.

    :param gguf: a file in the folder; its weights are read as numbers of ``dtype``, and the model is an ordinary one
    :raises FileNotFoundError: when a folder holds no model
    :raises OSError: when a hub model can be had neither from the cache nor from the network
    :raises ImportError: when a GGUF file is to be read and the package that does it is not installed
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = str(Path(path).expanduser()) if looks_local(path) else path
    if looks_local(path):
        problem = missing_model(path) if gguf is None else missing_gguf(path, gguf)
        if problem is not None:
            raise FileNotFoundError(f"policy.model.{'path' if gguf is None else 'gguf'}: {problem}")
    elif (lacking := missing_on_hub(path, revision)) is not None:
        raise FileNotFoundError(f"policy.model.path: {lacking}")
    if (lacking := missing_attention(attention)) is not None:
        raise ImportError(f"policy.model.attention: {lacking}")
    if gguf is not None and importlib.util.find_spec("gguf") is None:
        raise ImportError(f"policy.model.gguf: {NO_GGUF}")
    common: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    if gguf is not None:
        common["gguf_file"] = gguf
    if not looks_local(path) and unreachable_hub() is not None:
        common["local_files_only"] = True  # it is cached; asking again and again would take minutes
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, **common)
            lm = AutoModelForCausalLM.from_pretrained(
                name,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                **({"attn_implementation": attention} if attention else {}),
                **common,
            )
    except OSError as error:
        offline = " Only the local cache was searched." if "local_files_only" in common else ""
        error.add_note(
            f"policy.model.path: could not load {path!r}.{offline} Expected a folder with config.json, weights "
            "and tokenizer files, or the name of a hub model that is cached or reachable"
        )
        raise
    if gguf is not None:
        _forget_origin(lm)
    return tokenizer, cast("Transformer", lm)


def _forget_origin(lm: Any) -> None:
    """The weights are plain numbers now; what says that they are still quantised would keep them from being saved."""
    lm.hf_quantizer = None
    for holder, name in ((lm, "is_quantized"), (lm, "quantization_method"), (lm.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars off the terminal, which shows trials."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
