"""Ships a run to MLflow from a process of its own: training never waits for a server, a database or the GIL.

What it sends is read from the files every run leaves (its rows of metrics, its results), so these are the buffer: a
server that is down only means that rows are read later. How far each trial was sent is kept beside it in
``mlflow.json``, written before and after each batch; a batch whose fate is unknown is looked up on the server.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from orchestrator.api import RunFolder, write_json

from .settings import SWEEP, TRIAL, read_json
from .trial_run import TrialRun

logger = logging.getLogger("orchestrator_plugins.mlflow")

_PERIOD = 1.0  # seconds between looks at the files
_SLOWEST = 10.0  # seconds between attempts on a server that does not answer
_PATIENCE = 30.0  # seconds without success after the end before giving up


class Shipper:
    """One run of ours: a parent run and its nested runs on the server."""

    def __init__(self, directory: Path):
        self.directory, self.folder = directory, RunFolder(directory)
        self.sweep = read_json(directory / SWEEP)
        self.state_path = directory / "mlflow" / "state.json"
        self.state = read_json(self.state_path) or {}
        self.trials: dict[Path, TrialRun] = {}
        self.client: Any = None
        self._opened = False

    def ship(self) -> None:
        """Send everything that is there and was not sent.

        :raises Exception: whatever the server or the way to it raised; what was sent stays sent
        """
        self._open()
        for folder in (*self.folder.starts(), *self.folder.trials()):
            if folder.path not in self.trials and (folder.path / TRIAL).exists():
                self.trials[folder.path] = TrialRun(folder, self.client, self.state)
        for trial in self.trials.values():
            trial.ship()

    def close(self, *, complete: bool) -> None:
        """End the parent run, with the report, once everything was sent.

        :param complete: False: the driver is gone; runs without a result are marked as killed
        """
        self.ship()
        for trial in self.trials.values():
            if not complete:
                trial.kill()
        report = self.folder.report
        for path in (self.folder.plan, report.html, report.markdown, report.json):
            if path.exists():
                self.client.log_artifact(self.state["run_id"], str(path))
        statuses = [trial.status for trial in self.trials.values()]
        self.client.log_batch(self.state["run_id"], metrics=_counts(statuses))
        status = "KILLED" if not complete else "FAILED" if "failed" in statuses else "FINISHED"
        self.client.set_terminated(self.state["run_id"], status)

    def _open(self) -> None:
        """Find or make the experiment and the parent run; once per process, tried again until it works."""
        if self._opened:
            return
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = self.client or MlflowClient(tracking_uri=self.sweep["uri"])
        if "run_id" not in self.state:
            experiment = self._experiment()
            tag = {"orchestrator.run": str(self.directory)}
            found = self.client.search_runs([experiment], f"tags.`orchestrator.run` = '{self.directory}'")
            parents = [run for run in found if "orchestrator.trial" not in run.data.tags]
            run = parents[0] if parents else self.client.create_run(experiment, run_name=self.sweep["name"], tags=tag)
            self._note(experiment_id=experiment, run_id=run.info.run_id, directory=str(self.directory))
        else:
            self.client.update_run(self.state["run_id"], status="RUNNING")
        if "described" not in self.state:
            params = [Param(name[:250], value[:6000]) for name, value in self.sweep["params"].items()]
            for start in range(0, len(params), 100):
                self.client.log_batch(self.state["run_id"], params=params[start : start + 100])
            if self.folder.plan.exists():
                self.client.log_artifact(self.state["run_id"], str(self.folder.plan))
            self._note(described=True)
        self._opened = True

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.sweep["experiment"]
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=self.sweep["artifacts"])
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)  # another run made it just now
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _note(self, **changes: Any) -> None:
        self.state |= changes
        write_json(self.state_path, self.state)


def main(mode: str, directory: Path) -> int:
    """Ship until told to end; 0 when everything was sent.

    :param mode: ``watch``: a driver holds our standard input and writes ``end`` when its sweep is over; ``sync``: the
        run is over
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO)
    os.nice(10)
    with (directory / "mlflow" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the shipper of a killed driver may still be at work
        driver = _Driver(over=mode == "sync")
        shipper = Shipper(directory)
        wait, failing, since = _PERIOD, False, time.monotonic()
        while True:
            over, complete = driver.over.is_set(), driver.complete
            try:
                shipper.close(complete=complete) if over else shipper.ship()
            except Exception as error:
                # Any failure to deliver is met the same way: say it once, try again later, give up only at the end.
                if not failing:
                    logger.warning("nothing can be sent for now, rows stay on disk: %s", _first_line(error))
                    since = time.monotonic()
                failing, wait = True, min(2 * wait, _SLOWEST)
                if over:
                    wait = min(wait, 2.0)
                    since = max(since, driver.since)
                    if time.monotonic() - since > _PATIENCE:
                        logger.error("gave up on %s; the rest can be sent later", shipper.sweep["uri"])
                        return 1
            else:
                if failing:
                    logger.info("the server is back; everything was sent")
                failing, wait = False, _PERIOD
                if over:
                    return 0
            driver.over.wait(wait) if not over else time.sleep(wait)


class _Driver:
    """Hears from the driver through standard input: ``end`` when the sweep is over, the end of file when it died."""

    def __init__(self, *, over: bool):
        self.over = threading.Event()
        self.complete = over
        self.since = time.monotonic()
        if over:
            self.over.set()
        else:
            threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.complete = sys.stdin.readline().strip() == "end"
        self.since = time.monotonic()
        self.over.set()


def _counts(statuses: list[str | None]) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(f"trials/{s}", float(statuses.count(s)), now, 0) for s in ("done", "stopped", "failed")]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
