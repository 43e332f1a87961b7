"""The versions of a policy's weights that somebody needs: current, reference, previous, behaviour.

A version is the trainable parameters by name. Frozen parameters (the base below an adapter) are shared by all
versions, so the reference of a LoRA run costs no more than the adapter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from orchestrator.contract.batch import Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

BEHAVIOUR = "behaviour"
"""The version that acts while a round lasts; not a statistic's source, hence not in ``Weights``."""


class WeightStore:
    """Keeps only the versions asked for."""

    def __init__(self, module: nn.Module):
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._versions: dict[str, dict[str, Tensor]] = {}
        if not self._parameters:
            raise ValueError("the policy's module has no trainable parameter (requires_grad)")

    def __contains__(self, name: str) -> bool:
        return name in self._versions

    def current(self) -> dict[str, Tensor]:
        """A copy of the weights being trained."""
        return {name: p.detach().clone() for name, p in self._parameters.items()}

    def keep(self, name: str, state: Mapping[str, Tensor] | None = None) -> None:
        """Remember a version under a name; None: the current weights."""
        self._versions[name] = self.current() if state is None else {n: t.detach().clone() for n, t in state.items()}

    def forget(self, name: str) -> None:
        """Free a version."""
        self._versions.pop(name, None)

    def get(self, name: str) -> Mapping[str, Tensor]:
        """A kept version, not a copy."""
        return self._versions[name]

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Make a version current.

        :raises ValueError: when its names differ from the module's trainable parameters
        """
        if state.keys() != self._parameters.keys():
            different = sorted(state.keys() ^ self._parameters.keys())
            raise ValueError(f"weights and module differ in {len(different)} parameters, among them {different[:3]}")
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])

    @contextmanager
    def loaded(self, name: str) -> Iterator[None]:
        """Swap a version in for the block; ``current`` and unknown names of ``Weights`` that equal it need none."""
        if name == Weights.CURRENT or name not in self._versions:
            if name not in (Weights.CURRENT, Weights.OLD):
                raise KeyError(f"no weights are kept under {name!r}; kept: {sorted(self._versions)}")
            yield
            return
        version = self._versions[name]
        held = {n: p.data for n, p in self._parameters.items()}
        try:
            for n, parameter in self._parameters.items():
                parameter.data = version[n]
            yield
        finally:
            for n, parameter in self._parameters.items():
                parameter.data = held[n]

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All kept versions."""
        return dict(self._versions)

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what ``state_dict`` gave."""
        self._versions = {
            name: {n: t.to(self._parameters[n].device) for n, t in version.items()} for name, version in state.items()
        }
