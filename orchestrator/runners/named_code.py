"""Code that an experiment names: every process that plays its trials has what the run was planned with."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import PluginContractError
from orchestrator.plugging.code import ABSENT, code_now, source_of
from orchestrator.runs.store import code_of

_compared: set[tuple[str, str]] = set()  # modules and digests; what a process has imported it does not read again


def compare_code(run_directory: Path) -> None:
    """See that the code a run names is here as the driver read it, before anything imports it.

    :raises PluginContractError: it is not
    """
    planned = {module: digest for module, digest in code_of(run_directory).items() if (module, digest) not in _compared}
    found = code_now(planned)
    different = [
        f"{module}: driver {digest}, here {found[module]}"
        + (f" in {source_of(module)}" if found[module] != ABSENT else "")
        for module, digest in planned.items()
        if found[module] != digest
    ]
    if different:
        raise PluginContractError(
            "this process finds other code than the experiment was planned with; put the same on every machine, or "
            "resume with --accept-changes: " + "; ".join(different)
        )
    _compared.update(planned.items())
