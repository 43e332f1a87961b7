"""Looks at what an experiment depends on: versions, devices, the tracking server, plugins."""

from __future__ import annotations

import os
import platform
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from orchestrator import __version__
from orchestrator.errors import OrchestratorError

_NEEDED = ("torch", "transformers", "ray", "mlflow", "optuna", "pydantic", "pluggy", "omegaconf", "numpy", "scipy")
_OPTIONAL = ("vllm", "peft", "gymnasium", "bm25s", "nltk", "pyarrow", "textworld")
_DEFAULT_STORE = "sqlite:///runs/mlflow.db"
_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    found: str
    fine: bool = True

    def as_json(self) -> dict[str, str | bool]:
        """The finding as plain JSON."""
        return asdict(self)


def examine(tracking: str | None = None) -> list[Finding]:
    """Look at everything.

    :param tracking: store or server to try; None: ``MLFLOW_TRACKING_URI``, else the default store
    """
    return [*_versions(), *_devices(), _tracking(tracking), *_plugins()]


def _versions() -> Iterator[Finding]:
    yield Finding(what="orchestrator", found=__version__)
    yield Finding(what="python", found=f"{platform.python_version()} on {platform.platform()}")
    for name in _NEEDED + _OPTIONAL:
        try:
            yield Finding(what=name, found=metadata.version(name))
        except metadata.PackageNotFoundError:
            optional = name in _OPTIONAL
            yield Finding(
                what=name,
                found="not installed (optional)" if optional else f"not installed; pip install {name}",
                fine=optional,
            )


def _devices() -> Iterator[Finding]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    yield Finding(what="cpu", found=f"{os.cpu_count()} cores, {pages * size / 2**30:.0f} GiB memory")
    try:
        import torch
    except ImportError as error:
        yield Finding(what="gpu", found=f"unknown, torch does not import: {error}", fine=False)
        return
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding(what="gpu", found=", ".join(names) or "none")


def _tracking(uri: str | None) -> Finding:
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or _DEFAULT_STORE
    if uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_SECONDS) as answer:
                return Finding(what="tracking", found=f"{uri} answers ({answer.status})")
        except (urllib.error.URLError, OSError, ValueError) as error:
            return Finding(what="tracking", found=f"{uri} does not answer: {error}", fine=False)
    if not uri.startswith("sqlite:"):
        return Finding(what="tracking", found=f"{uri} (not tried)")
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent
    while not folder.exists():
        folder = folder.parent
    if os.access(folder, os.W_OK):
        return Finding(what="tracking", found=uri)
    return Finding(what="tracking", found=f"{uri}: {folder} cannot be written", fine=False)


def _plugins() -> Iterator[Finding]:
    from orchestrator.plugging.manager import PluginManager
    from orchestrator.plugging.registry import Registry

    manager = PluginManager()
    manager.discover(strict=False)
    for info in manager.plugins.values():
        yield Finding(what=f"plugin {info.name}", found=f"{info.distribution} {info.version}")
    for name, broken in manager.broken.items():
        yield Finding(
            what=f"plugin {name}",
            found=f"{broken.info.distribution} {broken.info.version} is broken: {broken.reason}",
            fine=False,
        )
    try:
        Registry(manager)
    except OrchestratorError as error:
        yield Finding(what="plugins", found=str(error), fine=False)
