"""Where a model is said to be, and what is wrong with it there."""

from __future__ import annotations

from pathlib import Path

NO_GGUF = "GGUF files are read by the package gguf; install it with: pip install 'rl-orchestrator[smollm2]'"


def looks_local(path: str) -> bool:
    """Whether a model path means a folder on this machine rather than a hub name."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).exists()


def missing_model(folder: str) -> str | None:
    """Say that a folder holds no model, and what to do; None where it does."""
    where = Path(folder).expanduser()
    if (where / "config.json").is_file():
        return None
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
