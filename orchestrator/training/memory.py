"""``update.micro_batch_tokens: auto``: how many padded tokens a forward and backward pass takes, so that it fits in memory.

Picked once a trial, from what a token holds for the backward pass and what memory is free, rounded down to a power of two so that
small changes of what is free change nothing; checked by what the first full pass held. A trial that goes on keeps its number.
Results do not depend on it but for rounding: see ``orchestrator.training.reduction``.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.contract.batch import Column
from orchestrator.contract.roles import HoldsActivations
from orchestrator.contract.settings import Resources, Settings
from orchestrator.training.distributed import Workers

logger = logging.getLogger(__name__)

MOST, LEAST = 16384, 256
"""Bounds of what is picked, in padded tokens."""
SMALL = 512 * 2**20
"""Bytes that ``MOST`` tokens may hold without a look at what is free: small models never depend on the machine."""
SHARE = 0.5
"""Of the free memory, of this trial's part: the rest is for the backward pass's own numbers, and for whoever else comes."""
_MOMENTS = {"adamw": 2, "rmsprop": 1, "sgd": 0}


class Held:
    """Counts what autograd keeps of the operations in a block, parameters apart; what is computed stays as it is."""

    def __init__(self, parameters: Sequence[Tensor]):
        self._seen = {p.untyped_storage().data_ptr() for p in parameters}
        self.bytes = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def __enter__(self) -> Held:
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


class Room:
    """The padded tokens of one pass, for one trial."""

    def __init__(self, settings: Settings, policy: Any, parameters: Sequence[nn.Parameter], workers: Workers):
        self._asked, self._settings, self._policy = settings.update.micro_batch_tokens, settings, policy
        self._parameters, self._workers = parameters, workers
        self._budget = math.inf  # bytes that a pass may hold
        self._tokens: int | None = None
        self._checked = False

    @property
    def is_automatic(self) -> bool:
        """Whether the number is picked here."""
        return self._asked == "auto"

    def tokens(self, wanted: frozenset[Column]) -> int | None:
        """Most padded tokens in one pass; None: no limit.

        :param wanted: columns a training pass computes
        """
        if self._asked != "auto":
            return self._asked
        if self._tokens is None:
            self._tokens = self._pick(wanted)
        return self._tokens

    def worth_checking(self, tokens: int) -> bool:
        """Whether a pass of so many padded tokens shows what full ones hold, and none has yet."""
        return self.is_automatic and not self._checked and self._tokens is not None and 4 * tokens >= self._tokens

    def check(self, held: int, tokens: int) -> None:
        """Take fewer tokens from here on where a pass held more than was thought."""
        self._checked = True
        per_token = held / max(tokens, 1)
        fitting = int(-self._workers.maximum(-fitting_tokens(per_token, self._budget)))
        if self._tokens is not None and fitting < self._tokens:
            logger.warning(
                "micro-batches of at most %d padded tokens from here on, not %d: one held %.2f MiB a token",
                fitting,
                self._tokens,
                per_token / 2**20,
            )
            self._tokens = fitting

    def state_dict(self) -> dict[str, Any]:
        """What was picked, as plain JSON."""
        budget = self._budget if math.isfinite(self._budget) else None
        return {"tokens": self._tokens, "checked": self._checked, "budget": budget}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore what ``state_dict`` gave; None: nothing was picked."""
        if state is not None:
            self._tokens, self._checked = state["tokens"], state["checked"]
            self._budget = math.inf if state["budget"] is None else state["budget"]

    def _pick(self, wanted: frozenset[Column]) -> int:
        device = self._parameters[0].device
        free = free_bytes(device)
        if free is not None:
            steps = 1 + _MOMENTS[self._settings.optimizer.use]  # gradients and moments are still to come
            coming = steps * sum(p.numel() * p.element_size() for p in self._parameters)
            self._budget = max(free / trials_beside(self._settings.resources, device) - coming, 0.0) * SHARE
        held = float(self._policy.bytes_per_token(wanted)) if isinstance(self._policy, HoldsActivations) else 0.0
        tokens = int(-self._workers.maximum(-fitting_tokens(held, self._budget)))
        if tokens < MOST:
            logger.info(
                "micro-batches of at most %d padded tokens: each holds %.2f MiB for the backward pass, which may hold %.1f GiB",
                tokens,
                held / 2**20,
                self._budget / 2**30,
            )
        return tokens


def fitting_tokens(held: float, budget: float) -> int:
    """Padded tokens that fit, a power of two between ``LEAST`` and ``MOST``.

    :param held: bytes of a token; 0: unknown
    :param budget: bytes
    """
    if held * MOST <= SMALL:
        return MOST
    fitting = budget / held
    return MOST if fitting >= MOST else max(LEAST, 2 ** int(math.log2(max(fitting, 1.0))))


def trials_beside(resources: Resources, device: torch.device) -> int:
    """Trials that share the memory, this one included, as far as the settings say."""
    if device.type != "cpu":
        return max(1, int(1 / resources.gpus)) if 0 < resources.gpus < 1 else 1
    return resources.concurrent or max(1, int((os.cpu_count() or 1) // resources.cpus))


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can still be had on a device: of a processor, within the control groups' limits; None: no saying.

    :param root: where ``proc`` and ``sys`` are
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    found = [_available(root), *_left_in_groups(root)]
    return min((bytes_ for bytes_ in found if bytes_ is not None), default=None)


def _available(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _left_in_groups(root: Path) -> list[int]:
    """Of the process's control group of version 2 and those around it, or of version 1's memory group."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        number, _, path = line.split(":", 2)
        base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        if number != "0":
            if "memory" not in line.split(":")[1].split(","):
                continue
            base, limit, used = base / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(base):
                break
            most, taken = _number(group / limit), _number(group / used)
            if most is not None and taken is not None:
                found.append(max(most - taken + _reclaimable(group / "memory.stat"), 0))
    return found


def _reclaimable(path: Path) -> int:
    """File cache that the kernel gives up under pressure."""
    for line in _lines(path):
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not there: another system, or another version of control groups
        return []
