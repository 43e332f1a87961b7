"""Where a model is said to be, and what is wrong with it there."""

from __future__ import annotations

import importlib.util
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

_PATIENCE = 5  # seconds for a hub to answer at all

NO_GGUF = "GGUF files are read by the package gguf; install it with: pip install 'rl-orchestrator[smollm2]'"
_ADAPTERS = "adapter_config.json"  # as peft names it
_FLASH = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}  # what each is imported from


def looks_local(path: str) -> bool:
    """Whether a model path means a folder on this machine rather than a hub name."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).exists()


def missing_model(folder: str) -> str | None:
    """Say that a folder holds no model, and what to do; None where it does."""
    where = Path(folder).expanduser()
    if (where / "config.json").is_file():
        return None
    if (where / _ADAPTERS).is_file():
        return (
            f"{folder!r} holds adapters, not a model; load their base and start from them: model: {{path: {_base_of(where)}, "
            f"lora: ...}} with the options they were trained with, and start: {{checkpoint: {folder}}}"
        )
    what = "holds no config.json" if where.is_dir() else "does not exist"
    return (
        f"{folder!r} looks like a folder but {what}; expected what save_pretrained writes "
        f"(config.json, model.safetensors, tokenizer files). A hub name has the form owner/name"
    )


def missing_gguf(folder: str, name: str) -> str | None:
    """Say that a folder lacks a GGUF file, and what it has; None where it is there."""
    where = Path(folder).expanduser()
    if (where / name).is_file():
        return None
    there = sorted(file.name for file in where.glob("*.gguf"))
    has = f"it has {', '.join(there)}" if there else "it has none" if where.is_dir() else "there is no such folder"
    return f"no file {name!r} in {folder!r}; expected the name of a GGUF file in the folder at path: {has}"


def missing_attention(name: str | None) -> str | None:
    """Say that an attention implementation is not installed; None where it is, or comes with transformers."""
    module = _FLASH.get(name or "")
    if module is None or any(importlib.util.find_spec(one) is not None for one in (module, "kernels")):
        return None
    return (
        f"{name} needs the package flash-attn (module {module}) or kernels, and a GPU; install it, or leave attention out: "
        "sdpa comes with torch"
    )


def missing_on_hub(name: str, revision: str | None) -> str | None:
    """Say that a hub model is neither in the cache nor to be had, without trying for long; None where it may be had."""
    from huggingface_hub import constants, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json", revision=revision or "main"), str):
        return None
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable_hub()
    if reason is None:
        return None
    return (
        f"no model {name!r} in the cache ({constants.HF_HUB_CACHE}), and {reason}; expected a folder with config.json, "
        f"weights and tokenizer, or a hub name that is cached or reachable. Where there is a network: hf download {name}"
    )


def unreachable_hub() -> str | None:
    """Why the hub does not answer; None where it does, whatever it says."""
    from huggingface_hub import constants

    address = constants.ENDPOINT
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PATIENCE):
            return None
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # it answers, and transformers may know certificates that we do not
            return None
        return f"{address} cannot be reached ({reason})"


def unfit_start(checkpoint: str, *, adapters: bool) -> str | None:
    """Say that a checkpoint is of adapters and the policy is not, or the other way; None where they go together.

    :param adapters: whether the policy trains adapters
    """
    from safetensors import SafetensorError, safe_open

    where = Path(checkpoint).expanduser()
    names: list[str] = []
    for file in sorted(where.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                names += tensors.keys()
        except (OSError, SafetensorError):  # damage is found, and named, where weights are read
            return None
    held = any(".lora_" in name for name in names)
    if not names or held == adapters:
        return None
    if adapters:
        return (
            f"{checkpoint!r} holds all weights of a model, and this policy trains adapters; make it their base instead: "
            f"policy: {{model: {{path: {checkpoint}, lora: ...}}}}, without start.checkpoint"
        )
    return (
        f"{checkpoint!r} holds adapters, and this policy trains all weights; give policy.model the lora options they were "
        "trained with, or merge them into their base and start from that folder: "
        f"peft.AutoPeftModelForCausalLM.from_pretrained({checkpoint!r}).merge_and_unload().save_pretrained(FOLDER)"
    )


def _base_of(folder: Path) -> str:
    """The base that adapters name."""
    try:
        base = json.loads((folder / _ADAPTERS).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    return str(base or "BASE")
