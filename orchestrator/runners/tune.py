"""Plays a sweep on Ray Tune: Tune owns processes, placement and restarts; ``Sweep`` decides and remembers.

Tune's own experiment state is never read back. A resumed sweep replays our journal, and a restarted trial continues
from its own checkpoint, so Tune sees only fresh trials with stable ids.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import Plan, TrialSpec
from orchestrator.contract.settings import Failures, Resources
from orchestrator.contract.types import TrialResult
from orchestrator.errors import ConfigError, Failure, Problem
from orchestrator.runners.progress import Progress
from orchestrator.runners.sweep import Sweep
from orchestrator.runners.watch import SECONDS, look
from orchestrator.runs.fence import Fence, driving

for _name, _value in {  # read by Ray when it is imported or started; a user's own setting wins
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.execution.placement_groups import PlacementGroupFactory  # noqa: E402
from ray.tune.experiment import Experiment, Trial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search.search_algorithm import SearchAlgorithm  # noqa: E402

from orchestrator.runners.worker import PlayTrial  # noqa: E402

logger = logging.getLogger(__name__)

_SCRATCH = "orchestrator-tune-"  # in the folder of temporary files
_AHEAD = 2  # trials queued beyond those that fit, so that a free worker need not wait for the next one


def run(
    plan: Plan, directory: Path, *, progress: Progress | None = None, held: Fence | None = None
) -> list[TrialResult]:
    """Play every trial of a plan, in parallel, each in a worker process; continue where an earlier driver ended.

    A trial that fails does not stop the others. A trial whose worker dies is restarted from its last checkpoint,
    ``failures.restarts`` times.

    :param directory: the run's directory; workers must see it under the same path
    :param held: the caller's hold of the run; None: it is taken here
    :returns: one result per trial, failed ones included
    :raises OrchestratorError: another process drives the run
    :raises ConfigError: the cluster cannot be reached, or has no room for a single trial
    :raises KeyboardInterrupt: the user interrupted; the run can be resumed
    """
    directory = Path(directory).resolve()
    with driving(directory, held):
        return _run(plan, directory, progress)


def _run(plan: Plan, directory: Path, progress: Progress | None) -> list[TrialResult]:
    resources, failures = plan.experiment.resources, plan.experiment.failures
    sweep = Sweep(plan, directory, progress)
    scratch = _scratch()
    try:
        if not sweep.finished:
            with _cluster(resources):
                _play(sweep, resources, failures, scratch)
        if not sweep.finished:
            raise KeyboardInterrupt(f"interrupted; continue with: orchestrator resume {directory}")
        return sweep.results()
    finally:
        sweep.close()
        shutil.rmtree(scratch, ignore_errors=True)


def resume(directory: Path, *, progress: Progress | None = None) -> list[TrialResult]:
    """Continue the run in a directory from its ``plan.json`` and journal.

    :raises ConfigError: there is no plan in the directory
    """
    from orchestrator.runs.store import load_plan

    return run(load_plan(Path(directory)), directory, progress=progress)


def _scratch() -> str:
    """A folder for what Tune writes and nobody reads, named after this process; those of dead ones are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        owner = left.name.removeprefix(_SCRATCH).partition("-")[0]
        if owner.isdigit() and not _lives(int(owner)):
            shutil.rmtree(left, ignore_errors=True)  # another user's stays
    return tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True


def _play(sweep: Sweep, resources: Resources, failures: Failures, scratch: str) -> None:
    slots = _slots(resources)
    source = _Source(sweep, resources, restarts=failures.restarts, slots=slots)
    tune.run(
        PlayTrial,
        name="tune",
        storage_path=scratch,
        search_alg=source,
        scheduler=_Judge(sweep),
        callbacks=[_Look(sweep)],
        reuse_actors=True,
        verbose=0,
        raise_on_failed_trial=False,
    )


class _Source(SearchAlgorithm):
    """Hands the sweep's trials to Tune, under their own ids."""

    def __init__(self, sweep: Sweep, resources: Resources, *, restarts: int, slots: int):
        self._sweep, self._restarts = sweep, restarts
        self._most = resources.concurrent or (slots if sweep.proposes else slots + _AHEAD)
        self._placement = _placement(resources)
        self._experiment: Experiment | None = None

    def add_configurations(self, experiments: Any) -> None:
        """Take the one experiment that says how to build trials."""
        (self._experiment,) = experiments

    def next_trial(self) -> Trial | None:
        """Build the next trial, unless as many as may run at once are under way."""
        if len(self._sweep.live) >= self._most:
            return None
        spec = self._sweep.next()
        if spec is None:
            return None
        self._sweep.started(spec.id)
        assert self._experiment is not None
        return Trial(
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
        """Note the end of a trial whose worker died once too often; other ends pass through the judge."""
        if error and trial_id in self._sweep.live:
            self._sweep.ended(
                trial_id,
                "failed",
                error=Failure(
                    type="TrialError",
                    message=f"its worker process died {self._restarts + 1} times; failures.restarts allows "
                    f"{self._restarts} restarts. Out of memory is the usual reason: see the worker's log in the trial's "
                    f"directory",
                ),
            )

    def is_finished(self) -> bool:
        """Whether every trial was handed out."""
        return self._sweep.exhausted

    def set_finished(self) -> None:
        """Nothing: an interrupted sweep stays open for a resumption."""


class _Judge(FIFOScheduler):
    """Passes each report to the sweep and its decision back to Tune."""

    _supports_buffered_results = False

    def __init__(self, sweep: Sweep):
        super().__init__()
        self._sweep = sweep

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict) -> str:
        """Judge one message of a worker."""
        message = json.loads(result["message"])
        if message["kind"] == "end":
            self._sweep.ended(trial.trial_id, message["status"], error=Failure.from_json(message["error"]))
            return TrialScheduler.STOP
        if self._sweep.report(trial.trial_id, message["step"], message["metrics"]):
            self._sweep.ended(trial.trial_id, "stopped")
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Say that a worker was lost; Tune starts the trial again while it may."""
        if trial.num_failures <= trial.max_failures:
            logger.warning(
                "trial %s: its worker died; restart %d of %d, from its last checkpoint",
                trial.trial_id,
                trial.num_failures,
                trial.max_failures,
            )
            self._sweep.started(trial.trial_id)


class _Look(tune.Callback):
    """Shows steps between reports: reads the last row of each running trial's metrics now and then."""

    def __init__(self, sweep: Sweep):
        self._sweep = sweep
        self._playing: set[str] = set()  # those a worker has taken up, of those handed out
        self._next = 0.0

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Show that a worker plays the trial."""
        self._playing.add(trial.trial_id)
        self._sweep.progress.trial_update(trial.trial_id, "running", 0, {})

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + SECONDS
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


def _slots(resources: Resources) -> int:
    """How many trials fit at once.

    :raises ConfigError: none does
    """
    have = ray.cluster_resources()
    wanted = {"CPU": resources.cpus * resources.workers, "GPU": resources.gpus * resources.workers}
    slots = min(int(have.get(kind, 0.0) / amount + 1e-9) for kind, amount in wanted.items() if amount)
    if slots < 1 and resources.address is None:
        raise ConfigError(
            [
                Problem(
                    "resources",
                    f"one trial needs {_amounts(wanted)}, and there is {_amounts({k: have.get(k, 0) for k in wanted})}; "
                    f"lower resources.cpus, resources.gpus or resources.workers, or name a cluster in resources.address",
                )
            ]
        )
    return max(slots, 1)  # a cluster may grow


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in amounts.items() if amount or kind == "CPU")


@contextmanager
def _cluster(resources: Resources) -> Iterator[None]:
    """Connect to the cluster the experiment names, or start one on this machine and end it afterwards."""
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():  # the caller's own
        yield
        return
    threads = str(max(1, int(resources.cpus)))
    before = os.environ.get("OMP_NUM_THREADS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        if resources.address is not None:
            variables = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": before or threads}
            ray.init(address=resources.address, runtime_env={"env_vars": variables}, **options)
        else:
            os.environ["OMP_NUM_THREADS"] = before or threads  # inherited by workers
            ray.init(include_dashboard=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = resources.address or "a local cluster"
        raise ConfigError(
            [Problem("resources.address", f"no Ray at {where}: {error}. See: orchestrator doctor")]
        ) from error
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
    try:
        yield
    finally:
        ray.shutdown()
