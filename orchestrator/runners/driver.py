"""Runs a sweep on Ray Tune: Tune owns processes, placement and restarts; ``Sweep`` decides and remembers.

Tune's own experiment state is never read back. A resumed sweep replays our journal, and a restarted trial continues
from its own checkpoint, so Tune sees only fresh trials with stable ids. This runs in a child process of the command,
which may be lost at any moment: the journal is the only thing that others learn the sweep's state from.
"""

from __future__ import annotations

import functools
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Plan, TrialSpec
from orchestrator.contract.settings import Failures, Resources
from orchestrator.errors import Failure, LostError
from orchestrator.runners import cluster, losses  # the cluster's settings come before Ray
from orchestrator.runners.leaving import Leave
from orchestrator.runners.losses import Loss
from orchestrator.runners.progress import Progress, Watch
from orchestrator.runners.sweep import Sweep
from orchestrator.runners.watch import SECONDS, look
from orchestrator.runners.worker import TrialWorker
from orchestrator.runs.hangs import read_hangs
from orchestrator.runs.layout import RunFolder, TrialFolder

from ray import tune  # isort: skip
from ray.air.execution._internal import RayActorManager  # isort: skip
from ray.exceptions import RayActorError, RayError, RayTaskError  # isort: skip
from ray.tune.execution import tune_controller  # isort: skip
from ray.tune.execution.placement_groups import PlacementGroupFactory  # isort: skip
from ray.tune.experiment import Experiment, Trial  # isort: skip
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # isort: skip
from ray.tune.search.search_algorithm import SearchAlgorithm  # isort: skip

logger = logging.getLogger(__name__)

_AHEAD = 2  # trials queued beyond those that fit, so that a free worker need not wait for the next one


def run(plan: Plan, directory: Path, progress: Progress, watch: Watch) -> bool:
    """Run a sweep's open trials until all have ended or the run is asked to end.

    :param watch: hears of signs of life and of losses
    :returns: whether all have ended
    :raises ConfigError: the cluster cannot be reached, or has no room for a single trial
    :raises LostError: Ray was lost
    """
    sweep = Sweep(plan, directory, progress)
    try:
        if not sweep.finished:
            with cluster.connected(plan.experiment.resources, watch.lost):
                _run(sweep, plan.experiment.resources, plan.experiment.failures, watch)
                sweep.close()
                watch.over(sweep.finished)  # from here on nothing depends on Ray
        return sweep.finished
    finally:
        sweep.close()


def _run(sweep: Sweep, resources: Resources, failures: Failures, watch: Watch) -> None:
    folder = RunFolder(sweep.directory)
    source = _Source(sweep, resources, restarts=failures.restarts, slots=cluster.slots(resources))
    judge = _Judge(sweep)
    shutil.rmtree(folder.scratch, ignore_errors=True)
    folder.scratch.mkdir()
    tune_controller.RayActorManager = _Actors  # type: ignore[misc]
    watch.beat()
    try:
        tune.run(
            TrialWorker,
            name="tune",
            storage_path=str(folder.scratch),
            search_alg=source,
            scheduler=judge,
            callbacks=[_Look(sweep, watch)],
            reuse_actors=True,
            verbose=0,
            raise_on_failed_trial=False,
        )
    except Exception as error:
        fault = source.fault or judge.fault  # Tune makes a text of what its parts raise
        if fault is not None:
            raise fault from None
        if isinstance(error, RayError) or isinstance(error.__cause__, RayError):
            loss = losses.classify(error)
            raise LostError(loss.message, loss.kind) from error
        raise


class _Actors(RayActorManager):
    """Takes every loss of an actor for the loss of that actor; Tune's own ends the sweep at those it does not know."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, (RayActorError, RayTaskError)):
            lost = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
            lost.__cause__ = exception
            exception = lost
        super()._actor_task_failed(tracked_actor_task, exception)


class _Trial(Trial):
    """A trial of Tune's that remembers how its worker was lost."""

    loss: Loss | None = None

    def handle_error(self, exc: Any = None) -> None:
        """Name the loss; Tune counts it."""
        self.loss = losses.classify(exc) if exc is not None else None
        super().handle_error(exc)


def _kept(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keep what a method of a part of Tune's raises as its ``fault``: Tune makes a text of it."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return method(self, *arguments, **named)
        except Exception as error:
            self.fault = error
            raise

    return call


class _Source(SearchAlgorithm):
    """Hands the sweep's trials to Tune, under their own ids."""

    def __init__(self, sweep: Sweep, resources: Resources, *, restarts: int, slots: int):
        self.fault: Exception | None = None
        self._sweep, self._restarts, self._leave = sweep, restarts, Leave(RunFolder(sweep.directory))
        self._most = resources.concurrent or (slots if sweep.proposes else slots + _AHEAD)
        self._placement = _placement(resources)
        self._experiment: Experiment | None = None

    def add_configurations(self, experiments: Any) -> None:
        """Take the one experiment that says how to build trials."""
        (self._experiment,) = experiments

    @_kept
    def next_trial(self) -> Trial | None:
        """Build the next trial, unless as many as may run at once are under way, or the run is asked to end."""
        if len(self._sweep.live) >= self._most or self._leave():
            return None
        spec = self._sweep.next()
        if spec is None:
            return None
        self._sweep.started(spec.id)
        assert self._experiment is not None
        return _Trial(
            self._experiment.run_identifier,
            config=_payload(self._sweep, spec),
            trial_id=spec.id,
            experiment_tag=spec.id,
            storage=self._experiment.storage,
            placement_group_factory=self._placement,
            max_failures=self._restarts,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
            log_to_file=(None, None),
        )

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Nothing: every end passes through the judge."""

    def is_finished(self) -> bool:
        """Whether every trial was handed out that is to be."""
        return self._sweep.exhausted or self._leave()

    def set_finished(self) -> None:
        """Nothing: an interrupted sweep stays open for a resumption."""


class _Judge(FIFOScheduler):
    """Passes each report to the sweep and its decision back to Tune."""

    _supports_buffered_results = False

    def __init__(self, sweep: Sweep):
        super().__init__()
        self.fault: Exception | None = None
        self._sweep, self._folder = sweep, RunFolder(sweep.directory)
        self._hangs = {trial.path: len(read_hangs(trial)) for trial in self._folders()}

    @_kept
    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        """Judge one message of a worker."""
        message = json.loads(result["message"])
        if message["kind"] == "left":  # it stays open, to be resumed
            return TrialScheduler.STOP
        if message["kind"] == "end":
            self._sweep.ended(trial.trial_id, message["status"], error=Failure.from_json(message["error"]))
            return TrialScheduler.STOP
        if self._sweep.report(trial.trial_id, message["step"], message["metrics"]):
            self._sweep.stop(trial.trial_id)
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    @_kept
    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Say that a worker was lost. Tune starts the trial again while it may, else its end is noted."""
        loss = self._hang(trial.trial_id) or getattr(trial, "loss", None)
        loss = loss or Loss(losses.Kind.CRASH, "a worker process died")
        if trial.num_failures <= trial.max_failures:
            logger.warning(
                "trial %s: %s; restart %d of %d, from its last checkpoint",
                trial.trial_id,
                loss.message,
                trial.num_failures,
                trial.max_failures,
            )
            self._sweep.started(trial.trial_id)
        elif trial.trial_id in self._sweep.live:
            said = (
                f"its worker process was lost {trial.num_failures} times; failures.restarts allows {trial.max_failures} "
                f"restarts. The last time {loss}"
            )
            self._sweep.ended(trial.trial_id, "failed", error=Failure(type="TrialError", message=said))

    def _hang(self, trial: str) -> Loss | None:
        """The hang for which a worker was ended since the last look: the trial's, or one of a start phase it runs."""
        found = None
        for folder in (*self._folder.starts(), self._folder.trial(trial)):
            hangs = read_hangs(folder)
            if len(hangs) > self._hangs.get(folder.path, 0):
                self._hangs[folder.path] = len(hangs)
                found = Loss(losses.Kind.HANG, str(hangs[-1]))
        return found

    def _folders(self) -> list[TrialFolder]:
        return [*self._folder.starts(), *self._folder.trials()]


class _Look(tune.Callback):
    """Shows steps between reports: reads the last row of each running trial's metrics now and then."""

    def __init__(self, sweep: Sweep, watch: Watch):
        self._sweep, self._watch = sweep, watch
        self._playing: set[str] = set()  # those a worker has taken up, of those handed out
        self._next = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show that a worker runs the trial."""
        self._playing.add(trial.trial_id)
        self._sweep.progress.trial_update(trial.trial_id, "running", 0, {})

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
        self._watch.beat()
        look(self._sweep.directory, self._playing & set(self._sweep.live), self._sweep.progress)


def _payload(sweep: Sweep, spec: TrialSpec) -> dict[str, Any]:
    return {
        "spec": json.dumps(spec.to_json()),
        "directory": str(sweep.directory),
        "fingerprint": dict(sweep.plan.fingerprint) or None,  # an empty one is not compared
    }


def _placement(resources: Resources) -> PlacementGroupFactory:
    """One bundle for a trial of one worker. A larger trial takes nothing itself: its Ray Train group takes it all."""
    if resources.workers > 1:
        return PlacementGroupFactory([{"memory": 1.0}])
    return PlacementGroupFactory([{"CPU": resources.cpus, **({"GPU": resources.gpus} if resources.gpus else {})}])
