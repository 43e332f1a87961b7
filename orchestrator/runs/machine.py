"""What a run ran on: cores, processor, accelerators, system, Python, packages."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from orchestrator.runs.atomic import write_json
from orchestrator.runs.layout import RunFolder

_PACKAGES = ("rl-orchestrator", "torch", "transformers", "ray", "numpy", "scipy", "mlflow")


def record(directory: Path) -> None:
    """Write ``machine.json`` into a run directory, once: a run that is resumed elsewhere keeps its first machine."""
    path = RunFolder(directory).machine
    if not path.exists():
        write_json(path, describe(), indent=1)


def read(directory: Path) -> dict[str, str] | None:
    """What a run ran on; None where that was not recorded, or cannot be read."""
    try:
        found = json.loads(RunFolder(directory).machine.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else None


def describe() -> dict[str, str]:
    """This machine, by kind of fact."""
    facts = {"processor": f"{os.cpu_count()} cores, {_processor()}"}
    accelerators = _accelerators()
    if accelerators:
        facts["accelerators"] = accelerators
    facts["system"] = f"{platform.system()} {platform.release()}, Python {sys.version.split()[0]}"
    facts["packages"] = ", ".join(_installed())
    return facts


def _installed() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux: the standard library's word for it will do
        return platform.processor() or platform.machine()
    return platform.machine()


def _accelerators() -> str:
    """Names of CUDA devices, where this process has loaded torch anyway."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
