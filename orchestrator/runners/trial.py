"""Runs one trial in this process: plugins found again, components built, start phase shared, result written."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.contract.limits import Unlimited
from orchestrator.contract.metrics import OBSERVERS
from orchestrator.contract.parts import Part
from orchestrator.contract.plan import Components, Phase, Trial, TrialSpec
from orchestrator.contract.sections import RewardSpec
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import TrialResult
from orchestrator.errors import (
    CheckpointError,
    Failure,
    PluginContractError,
    TrialError,
    TrialInterrupted,
    TrialStopped,
    caused_by,
)
from orchestrator.experiment import planner as plan
from orchestrator.maths.seeding import derive_seed
from orchestrator.plugging.registry import Registry, load_registry
from orchestrator.runners.named_code import compare_code
from orchestrator.runners.watchdog import Watchdog
from orchestrator.runs.atomic import remove
from orchestrator.runs.fence import FOREVER, running
from orchestrator.runs.layout import RunFolder, TrialFolder
from orchestrator.runs.ledger import Ledger, finite
from orchestrator.runs.repair import forget_if_damaged
from orchestrator.runs.results import clear_result, gather, read_finished, write_result
from orchestrator.training import procedure
from orchestrator.training.events import Events

logger = logging.getLogger(__name__)

Reporter = Callable[[int, Mapping[str, float]], None]


def run_spec(
    spec: TrialSpec,
    run_directory: Path,
    fingerprint: Mapping[str, str] | None = None,
    report: Reporter | None = None,
    registry: Registry | None = None,
    leaving: Callable[[], bool] | None = None,
    watch: bool = False,
) -> TrialResult:
    """Run a trial to its end, from its newest readable checkpoint if there is one.

    :param fingerprint: of the driver's plugins; None: not compared
    :param report: called with (step, metrics) for each row the sweep's scheduler is to see, values that are not finite
        included
    :param registry: None: discover the installed plugins
    :param leaving: whether the run is asked to end; None: the note in its folder says so
    :param watch: keep the limits on what may hang: this process is ended where a call does not return
    :returns: the result, also in ``trials/<id>/result.json``; a trial that failed has status ``failed``, one that the
        scheduler ended early (``report`` raised TrialStopped) has ``stopped``
    :raises PluginContractError: this process found other plugins than the driver, or other code that the run names
    :raises TrialError: another process runs this trial
    :raises TrialInterrupted: the run was asked to end; the trial saved what it had and has no result
    """
    registry = registry or load_registry()
    _compare(fingerprint, registry)
    compare_code(run_directory)
    registry.manager.add_default(procedure)
    registry.manager.configure({"version": __version__, "run_directory": str(run_directory)})
    settings = spec.settings
    _limit_threads(max(1, int(settings.resources.cpus)), now=settings.policy is not None)
    run = RunFolder(run_directory)
    leaving = leaving or run.leave.exists
    if leaving():
        raise TrialInterrupted
    folder = run.trial(spec.id)
    with running(folder):
        return _run(spec, run, folder, registry, report, leaving, watch)


def _run(
    spec: TrialSpec,
    run: RunFolder,
    folder: TrialFolder,
    registry: Registry,
    report: Reporter | None,
    leaving: Callable[[], bool],
    watch: bool,
) -> TrialResult:
    clear_result(folder)
    forget_if_damaged(folder, every_step=spec.settings.procedure == "train")
    ledger = Ledger(folder.metrics)

    def record(step: int, metrics: Mapping[str, float]) -> None:
        ledger.append(step, "evaluation", metrics=finite(metrics))

    def record_and_report(step: int, metrics: Mapping[str, float]) -> None:
        record(step, metrics)
        if report is not None:
            report(step, metrics)

    limits = Watchdog(folder) if watch else Unlimited()
    trial = Trial(
        id=spec.id,
        arm=spec.arm,
        seed=spec.seed,
        phase=spec.phase,
        settings=spec.settings,
        directory=folder.path,
        rows=ledger,
        record=record,
        report=record_and_report,
        leaving=leaving,
        limits=limits,
    )
    events = Events(registry, trial)
    events.emit("on_trial_start")
    try:
        settings = spec.settings
        components = build(settings, registry, spec.seed)
        if isinstance(limits, Watchdog):
            limits.limit(settings.failures, components.parts)
        if components.policy is not None:
            _load_start(settings, components, folder, run, registry, leaving, watch)
        result = registry.manager.first("run_trial", trial=trial, components=components)
        if not isinstance(result, TrialResult):
            raise PluginContractError(f"run_trial returned a {type(result).__name__}; expected a TrialResult")
    except Exception as error:
        failure = Failure.of(error)
        logger.info("trial %s failed: %s", spec.id, failure)  # whoever asked for the trial says it aloud
        events.emit("on_trial_error", error=error)
        result = TrialResult(
            trial=spec.id,
            arm=spec.arm,
            seed=spec.seed,
            status="failed",
            step=max((row["step"] for row in ledger.intact()), default=0),
            error=failure,
        )
    except TrialStopped:
        result = gather(folder, trial=spec.id, arm=spec.arm, seed=spec.seed, status="stopped")
        events.emit("on_trial_end", result=result)
    else:
        events.emit("on_trial_end", result=result)
    result = _count_observers(result, trial)
    write_result(folder, result)
    return result


def _count_observers(result: TrialResult, trial: Trial) -> TrialResult:
    """Tell of the errors of watching plugins that no row counts: those of the last moments of a trial."""
    errors = trial.passed_over.total()
    told = 0.0
    for row in trial.rows.rows():
        told = row["metrics"].get(OBSERVERS, told)
    if errors == told:
        return result
    trial.rows.append(result.step, "observers", metrics={OBSERVERS: float(errors)})
    return replace(result, metrics={**result.metrics, OBSERVERS: float(errors)})


def build(settings: Settings, registry: Registry, seed: int) -> Components:
    """Build a trial's components; the policy's first weights follow from the seed."""

    parts: dict[str, Part] = {}

    def one(role: str) -> Any:
        spec = getattr(settings, role)
        if spec is None:
            return None
        parts[role] = registry.part(role, spec.use, spec.options)
        return parts[role].component

    def reward(spec: RewardSpec, key: str) -> Any:
        parts[key] = registry.part("reward", spec.use, spec.options)
        return parts[key].component

    environment = one("environment")
    if settings.policy is not None:
        import torch

        torch.manual_seed(derive_seed(seed, "policy"))
    policy = one("policy")
    components = Components(
        environment=environment,
        policy=policy,
        sampler=one("sampler"),
        rewards=tuple(
            (spec.use, spec.weight, reward(spec, f"reward.{index}")) for index, spec in enumerate(settings.rewards)
        ),
        advantage=one("advantage"),
        objective=one("objective"),
        registry=registry,
        parts=parts,
    )
    if settings.policy is not None and components.objective is not None:
        if policy.speaks != environment.speaks:
            raise PluginContractError(
                f"environment {settings.environment.use!r} speaks {environment.speaks}, policy {settings.policy.use!r} "
                f"understands {policy.speaks}; choose a policy for {environment.speaks}"
            )
        from orchestrator.training.duties import prepare

        prepare(components, seed)
    return components


def _load_start(
    settings: Settings,
    components: Components,
    trial: TrialFolder,
    run: RunFolder,
    registry: Registry,
    leaving: Callable[[], bool],
    watch: bool,
) -> None:
    """Give a new trial's policy the weights of the shared start phase, running the phase first if nobody has."""
    from orchestrator.runs.checkpoint import checkpoints, load_module, read_weights

    if settings.start is None or checkpoints(trial.checkpoints):
        return
    if settings.start.checkpoint is not None:
        path = Path(settings.start.checkpoint).expanduser()
        weights = read_weights(path)
    else:
        path = _started(settings, run, registry, leaving, watch)
        try:
            weights = read_weights(path)
        except CheckpointError as error:
            logger.warning("%s; the start phase is run again, from its checkpoint before that", error)
            _drop_damaged(TrialFolder(path.parents[1]), path)
            path = _started(settings, run, registry, leaving, watch)
            weights = read_weights(path)
    load_module(components.policy.module, weights, path, partial=True)


def _started(settings: Settings, run: RunFolder, registry: Registry, leaving: Callable[[], bool], watch: bool) -> Path:
    """The checkpoint that a start phase ended with."""
    from orchestrator.runs.checkpoint import checkpoints

    folder = _start_phase(settings, run, registry, leaving, watch).checkpoints
    found = checkpoints(folder)
    if not found:
        raise CheckpointError(f"the start phase left no checkpoint in {folder}; remove {folder.parent} to run it again")
    return found[-1]


def _drop_damaged(folder: TrialFolder, path: Path) -> None:
    """Remove a start phase's damaged checkpoint with its result, unless another trial has done so already."""
    from orchestrator.runs.checkpoint import read_weights

    with running(folder, wait=FOREVER):
        try:
            read_weights(path)
        except CheckpointError:
            remove(path)
            clear_result(folder)


def _start_phase(
    settings: Settings, run: RunFolder, registry: Registry, leaving: Callable[[], bool], watch: bool
) -> TrialFolder:
    phase = plan.start_settings(settings)
    assert phase is not None
    assert settings.start is not None
    key = plan.start_key(settings)
    folder = run.start(key)
    with running(folder, wait=FOREVER):  # others wait until it is over
        done = read_finished(folder)
        if done is None or done.status != "done":
            logger.info("start phase %s: %s steps", key, phase.schedule.steps)
            spec = TrialSpec(
                id=f"start-{key}", arm="start", seed=settings.start.seed, phase=Phase.START, settings=phase
            )
            done = _run(spec, run, folder, registry, None, leaving, watch)
    if done.status != "done":
        said = f"the start phase in {folder.path} failed: {done.error.reason if done.error else 'it left no reason'}"
        raise caused_by(TrialError(said), done.error)
    return folder


def _limit_threads(count: int, *, now: bool) -> None:
    """Keep torch to so many threads, without importing it for a procedure that may not need it."""
    os.environ.setdefault("OMP_NUM_THREADS", str(count))  # read when torch is imported
    if now or "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def _compare(fingerprint: Mapping[str, str] | None, registry: Registry) -> None:
    found = registry.manager.fingerprint()
    if fingerprint is None or dict(fingerprint) == found:
        return
    different = [
        f"{name}: driver {fingerprint.get(name, 'nothing')}, here {found.get(name, 'nothing')}"
        for name in sorted(fingerprint.keys() | found.keys())
        if fingerprint.get(name) != found.get(name)
    ]
    raise PluginContractError(
        "this process finds other plugins than the driver; install the same ones on every machine: "
        + "; ".join(different)
    )
