"""Carries a plan out: trials played, observers told, the report written, failures said. For the command line and for Python."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import __version__
from orchestrator.errors import describe

if TYPE_CHECKING:
    from orchestrator.cli.console import TrialTable
    from orchestrator.contract.plan import Plan
    from orchestrator.contract.types import TrialResult
    from orchestrator.plugging.registry import Registry
    from orchestrator.runners.progress import Progress
    from orchestrator.runs.fence import Fence


def carry_out(
    plan: Plan,
    directory: Path,
    registry: Registry,
    held: Fence,
    watcher: TrialTable,
    say: Callable[..., None],
    *,
    local: bool,
    around: Callable[[], AbstractContextManager[None]],
    report: Callable[[], object],
    resume: str,
    here: bool = False,
) -> list[TrialResult]:
    """Run the plan's open trials, write the report, and say what failed.

    :param say: of a line and, for what failed, a style
    :param around: while trials are played
    :param resume: how to run failed trials again, as it is typed
    :param here: play trials in this process, whatever they are made of
    """
    from orchestrator.runs.layout import RunFolder

    began = time.monotonic()
    registry.manager.configure({"version": __version__, "run_directory": str(directory)})
    for _, error in registry.manager.notify("on_sweep_start", plan=plan, directory=directory):
        say(f"a plugin was passed over at the start of the sweep: {describe(error)}")
    with around(), watcher.shown():
        results = _results(plan, directory, registry, held, local, watcher, here)
    report()
    for _, error in registry.manager.notify("on_sweep_end", plan=plan, directory=directory, results=results):
        say(f"a plugin was passed over at the end of the sweep: {describe(error)}")
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        say(f"trial {result.trial} failed: {result.error or 'no reason was left'}", "red")
    if failed:
        say(
            f"{len(failed)} of {len(results)} trials failed; their errors: {RunFolder(directory).trial('*').result}. "
            f"Run them again with: {resume}"
        )
    logging.getLogger(__name__).info("%s trials in %.0f s", len(results), time.monotonic() - began)
    return results


def needs_ray(plan: Plan, local: bool) -> bool:
    """Whether trials are played by Ray's workers."""
    resources = plan.experiment.resources
    alone = len(plan.trials) == 1 and not plan.experiment.search
    return not (local or (alone and resources.workers == 1 and resources.address is None))


def _results(
    plan: Plan,
    directory: Path,
    registry: Registry,
    held: Fence,
    local: bool,
    watcher: Progress,
    here: bool,
) -> list[TrialResult]:
    if not needs_ray(plan, local):
        from orchestrator.runners import local as runner

        if not here and runner.hangs_are_watched(plan, registry):
            return runner.run_watched(plan, directory, watcher, held=held)
        return runner.run(plan, directory, registry, watcher, held=held)
    from orchestrator.runners import tune

    return tune.run(plan, directory, progress=watcher, held=held)
