"""What a step costs on this machine: measured once, remembered in the user's cache folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.contract.settings import Settings
from orchestrator.experiment.expanded import expanded
from orchestrator.plugging.registry import Registry
from orchestrator.runs import machine
from orchestrator.runs.atomic import write_json
from orchestrator.runs.cache import cache_file

_KEPT = 300  # measurements in the file; the oldest go first


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What a trial with certain settings costs, as a few steps of it showed."""

    start_seconds: float  # until the steps run evenly: imports, building, what the first step takes beyond others
    step_seconds: float
    step_tokens: float  # generated for training
    evaluation_seconds: float  # of one rollout
    save_seconds: float  # of one checkpoint
    memory: int  # bytes, at the peak, of the trial's own process
    gpu_memory: int | None  # bytes, at the peak, over all devices; None: no GPU was used
    machine: Mapping[str, str]  # facts and package versions, as orchestrator.runs.machine tells them
    date: str  # ISO 8601, a day

    def to_json(self) -> dict[str, Any]:
        """The measurement as plain JSON."""
        return {**dataclasses.asdict(self), "machine": dict(self.machine)}

    @classmethod
    def from_json(cls, data: Any) -> Measurement:
        """Read what ``to_json`` made.

        :raises ValueError: the data are no measurement
        """
        try:
            made = cls(**data)
        except TypeError as error:
            raise ValueError(f"this is no measurement: {error}") from error
        amounts = [made.start_seconds, made.step_seconds, made.step_tokens, made.evaluation_seconds, made.save_seconds]
        amounts += [made.memory, 0 if made.gpu_memory is None else made.gpu_memory]
        for amount in amounts:
            if not isinstance(amount, int | float) or not math.isfinite(amount) or amount < 0:
                raise ValueError(f"this is no measurement: {amount!r} is no amount of time, tokens or memory")
        if not isinstance(made.machine, Mapping) or not isinstance(made.date, str):
            raise ValueError("this is no measurement: it does not say where and when it was taken")
        return made


def cost_key(settings: Settings, registry: Registry) -> str:
    """Content hash of everything that decides what a step, an evaluation's rollout and a trial's memory cost here.

    Seeds, names, the number of steps, learning rates and the start phase do not; this machine, its packages and the
    plugins' sources do.
    """
    import torch  # noqa: F401  the machine names its accelerators only to a process that has loaded torch

    full = expanded(settings, registry)
    decides: dict[str, Any] = {
        "procedure": settings.procedure,
        **{role: full[role] for role in ("environment", "policy", "sampler", "rewards", "advantage", "objective")},
        "schedule": {name: value for name, value in full["schedule"].items() if name != "steps"},
        "trains": settings.schedule.steps > 0,
        "optimizer": [settings.optimizer.use, settings.optimizer.critic_lr is not None],
        **{section: full[section] for section in ("update", "sampling")},
        "evaluation": {name: full["evaluation"][name] for name in ("tasks", "samples", "temperature", "top_p")},
        "resources": {name: full["resources"][name] for name in ("cpus", "gpus", "workers")},
        "machine": machine.describe(),
        "plugins": registry.manager.fingerprint(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


class Measurements:
    """The measurements of this user, by :func:`cost_key`."""

    def __init__(self, path: Path | None = None):
        """Read the file; one that cannot be read counts as empty, and ``problem`` says why.

        :param path: None: in the user's cache folder
        """
        self.path = path or cache_file("measurements.json")
        self.problem: str | None = None
        self._found = self._read()

    def find(self, key: str) -> Measurement | None:
        """What was measured, if anything was."""
        return self._found.get(key)

    def keep(self, key: str, measurement: Measurement) -> None:
        """Remember a measurement, in the file too; in place of an older one of the same settings.

        :raises OSError: the file cannot be written; this object remembers all the same
        """
        self._found = {**self._found, **self._read()}  # another process may have measured meanwhile
        self._found.pop(key, None)
        self._found[key] = measurement
        for oldest in list(self._found)[:-_KEPT]:
            del self._found[oldest]
        write_json(self.path, {key: found.to_json() for key, found in self._found.items()}, indent=1)

    def _read(self) -> dict[str, Measurement]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(data, dict):
                raise ValueError(f"it holds a {type(data).__name__}, not measurements by key")
            return {key: Measurement.from_json(value) for key, value in data.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self.problem = f"{self.path} cannot be read and is passed over ({error}); --measure writes it anew"
            return {}
