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
import uuid
from pathlib import Path
from typing import Any

from orchestrator.api import Failure, OrchestratorError, RunFolder, reveal, write_json

from . import store
from .notes import Notes
from .settings import SWEEP, TRIAL, read_json
from .trial_run import STATE, TrialRun, attach, log_params, read_state

logger = logging.getLogger("orchestrator_plugins.mlflow")

_ENDS = ("done", "stopped", "failed")  # how trials end
_PERIOD = 1.0  # seconds between looks at the files
_SLOWEST = 10.0  # seconds between attempts on a server that does not answer
_PATIENCE = 30.0  # seconds without success after the end before giving up


class Shipper:
    """One run of ours: a parent run and its nested runs on the server."""

    def __init__(self, directory: Path):
        self.directory, self.folder, self.notes = directory, RunFolder(directory), Notes(directory)
        self.sweep = read_json(directory / SWEEP)
        self.state_path = directory / "mlflow" / "state.json"
        self.state = read_state(self.state_path, self.notes)
        self.trials: dict[Path, TrialRun] = {}
        self.client: Any = None
        self._ours = self.sweep["uri"] is None or self.sweep.get("artifacts") is not None  # written by 0.1, in full
        self.store = self._locate()
        self._opened = False

    @property
    def where(self) -> str:
        """The store or server, as a user knows it."""
        return str(self.store or self.sweep["uri"])

    def ship(self) -> None:
        """Send everything that is there and was not sent. A trial whose files cannot be read holds up no other.

        :raises Exception: whatever the server or the way to it raised; what was sent stays sent
        """
        self._open()
        for folder in (*self.folder.starts(), *self.folder.trials()):
            if folder.path not in self.trials and (folder.path / TRIAL).exists():
                self.trials[folder.path] = TrialRun(folder, self.client, self.state, self.notes)
        unreadable: list[Exception] = []
        for trial in self.trials.values():
            try:
                trial.ship()
            except (ValueError, LookupError, TypeError) as error:
                unreadable.append(error)
        if unreadable:
            raise unreadable[0]

    def close(self, *, complete: bool) -> bool:
        """End the parent run, with the report, once everything was sent.

        Runs of trials without a result are marked as killed.

        :param complete: False: the driver is gone
        :returns: whether the server took every trial
        """
        from mlflow.entities import Metric

        self.ship()
        for trial in self.trials.values():
            trial.end()
        report = self.folder.report
        for path in (self.folder.plan, report.html, report.markdown, report.json):
            attach(self.client, self.state["run_id"], path, self.notes)
        statuses = [trial.status for trial in self.trials.values()]
        counts = {status: statuses.count(status) for status in _ENDS}
        if self.state.get("counts") != counts:
            now = int(time.time() * 1000)
            metrics = [Metric(f"trials/{status}", float(count), now, 0) for status, count in counts.items()]
            self.client.log_batch(self.state["run_id"], metrics=metrics)
            self._note(counts=counts)
        killed = not complete or None in statuses
        status = "KILLED" if killed else "FAILED" if "failed" in statuses else "FINISHED"
        self.client.set_terminated(self.state["run_id"], status)
        return not any(trial.refused for trial in self.trials.values())

    def _open(self) -> None:
        """Find or make the store, the experiment and the parent run; once per process, tried again until it works."""
        if self._opened:
            return
        from mlflow import MlflowClient

        if self.store is not None:
            store.prepare(self.store, ours=self._ours, say=self.notes.say)
        uri = reveal(self.sweep["uri"], "tracking.uri") if self.store is None else store.uri_of(self.store)
        self.client = self.client or MlflowClient(tracking_uri=uri)
        if "run_id" in self.state and self._continues():
            if self.state.get("directory") != str(self.directory):
                self.client.set_tag(self.state["run_id"], "orchestrator.run", str(self.directory))
                self._note(directory=str(self.directory))
            self.client.update_run(self.state["run_id"], status="RUNNING")
        else:
            self._begin()
        if "described" not in self.state:
            log_params(self.client, self.state["run_id"], self.sweep["params"], self.notes)
            attach(self.client, self.state["run_id"], self.folder.plan, self.notes)
            self._note(described=True)
        self._opened = True

    def _locate(self) -> Path | None:
        """The file of the sqlite store: beside the run, or where a run that was moved has its runs; None: a server."""
        if not self._ours:
            return store.file_of(self.sweep["uri"])
        beside, run = self.directory.parent / store.NAME, self.state.get("run_id")
        earlier = self.state.get("store") or (self.sweep["uri"] and store.file_of(self.sweep["uri"]))
        found = (path for path in (beside, earlier and Path(earlier)) if run and path and store.holds(path, run))
        return next(found, beside)

    def _continues(self) -> bool:
        """Whether the parent run that was noted is there, and this folder's own."""
        from mlflow.exceptions import MlflowException

        run, before = self.state["run_id"], Path(self.state.get("directory", self.directory))
        apart = before != self.directory and before.exists() and not before.samefile(self.directory)
        if apart and read_state(before / "mlflow" / "state.json", self.notes).get("run_id") == run:
            self.notes.say(f"{self.directory} is a copy of {before}; it gets runs of its own in MLflow")
            return False
        try:
            found = self.client.get_run(run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.notes.say(f"{self.where} has no run {run} of {self.directory} any more; everything is sent anew")
            return False
        if found.info.lifecycle_stage == "deleted":
            raise OrchestratorError(f"the run {run} was deleted in MLflow; see: mlflow runs restore --run-id {run}")
        return True

    def _begin(self) -> None:
        """Make the parent run; one that was made just before a crash is found by its key."""
        if "run_id" in self.state or "key" not in self.state:
            self.state = {}
            self._note(key=uuid.uuid4().hex)
        experiment, key = self._experiment(), self.state["key"]
        found = self.client.search_runs([experiment], f"tags.`orchestrator.key` = '{key}'")
        if found:
            run = found[0]
        else:
            for folder in (*self.folder.starts(), *self.folder.trials()):
                (folder.path / STATE).unlink(missing_ok=True)  # of another parent run
            tags = {"orchestrator.key": key, "orchestrator.run": str(self.directory)}
            run = self.client.create_run(experiment, run_name=self.sweep["name"], tags=tags)
        self._note(
            experiment_id=experiment,
            run_id=run.info.run_id,
            directory=str(self.directory),
            store=str(self.store) if self._ours else None,
        )

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self.sweep["experiment"]
        found = self.client.get_experiment_by_name(name)
        if found is None:
            artifacts = None
            if self._ours:
                assert self.store is not None
                artifacts = (self.store.parent / store.ARTIFACTS).as_uri()
            try:
                return self.client.create_experiment(name, artifact_location=artifacts)
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
        if shipper.store is not None:
            shipper.store.parent.mkdir(parents=True, exist_ok=True)
            os.chdir(shipper.store.parent)  # so that the store has a name without a path
        wait, failing, since, took = _PERIOD, False, time.monotonic(), False
        while True:
            over, complete = driver.over.is_set(), driver.complete
            try:
                if over:
                    took = shipper.close(complete=complete)
                else:
                    shipper.ship()
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
                        logger.error("gave up on %s; the rest can be sent later", shipper.where)
                        return 1
            else:
                if failing:
                    logger.info("the server is back; everything was sent")
                failing, wait = False, _PERIOD
                if over:
                    return 0 if took else 1
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


def _first_line(error: Exception) -> str:
    return Failure.of(error).reason.splitlines()[0][:500]  # which hides passwords


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
