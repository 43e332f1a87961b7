"""One trial's nested run: rows of metrics in order, each name once per step, whatever crashed in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.api import Failure, TrialFolder, write_json

from .names import Names
from .notes import Notes
from .rows import Rows
from .settings import TRIAL, read_json

logger = logging.getLogger("orchestrator_plugins.mlflow")

STATE = "mlflow.json"  # in a trial's directory
_BATCH = 1000  # metrics MLflow takes in one call
_PARAMS = 100  # parameters
_INVALID = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_REFUSALS = (*_INVALID, "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
_ENDS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class TrialRun:
    """Sends one trial.

    How far it came is the *mark*: the highest step sent, and the names sent for that step. A resumed trial writes the
    rows after its checkpoint again; those up to the mark are left out, so no step is doubled.
    """

    def __init__(self, folder: TrialFolder, client: Any, parent: Mapping[str, Any], notes: Notes):
        self.folder, self.client, self.parent, self.notes = folder, client, parent, notes
        self.path = folder.path / STATE
        self.state = {"mark": {"step": -1, "names": []}, "batch": None, "ended": None, **read_state(self.path, notes)}
        self.status: str | None = None  # of the trial's result
        self.refused = False
        self._rows = Rows(folder.metrics, self.name, notes)
        self._names = Names()
        self._dropped: set[str] = set()  # names the server refuses however they are spelt

    def ship(self) -> None:
        """Send new rows; when the trial has ended and all are sent, its transcripts and its end.

        :raises Exception: whatever the server or the way to it raised
        """
        if self.refused:
            return
        from mlflow.exceptions import MlflowException

        sent = False
        try:
            self._ship()
            sent = True
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self.refused = True
            logger.error("the server refuses trial %s, its metrics stay in %s: %s", self.name, self.folder.path, error)
        finally:
            if not sent:
                self._rows.again()  # what was read and not sent

    @property
    def name(self) -> str:
        """The trial's id."""
        return self.folder.path.name

    def end(self) -> None:
        """Let no run look alive: one without a result was killed, one that was refused has failed."""
        if "run_id" not in self.state or (self.status is not None and not self.refused):
            return
        from mlflow.exceptions import MlflowException

        status = "KILLED" if self.status is None else "FAILED"
        try:
            self.client.set_terminated(self.state["run_id"], status)
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            logger.error("the run of trial %s cannot be ended: %s", self.name, error)
        self._note(ended=status)

    def _ship(self) -> None:
        result, stamp = self._result()  # before the rows: what it ends was written before it
        self.status = None if result is None else result["status"]
        if result is not None and self.state["ended"] == stamp and not self._rows.waiting:
            return
        self._open()
        self._settle()
        for metrics, mark in self._batches():
            self._send(metrics, mark)
        if result is not None and self.state["ended"] != stamp:
            attach(self.client, self.state["run_id"], self.folder.rollouts, self.notes)
            failure = Failure.from_json(result.get("error"))
            if failure is not None:
                self.client.set_tag(self.state["run_id"], "error", str(failure)[:5000])
            self.client.set_tag(self.state["run_id"], "status", result["status"])
            self.client.set_terminated(self.state["run_id"], _ENDS.get(result["status"], "FINISHED"))
            self._note(ended=stamp)

    def _open(self) -> None:
        if "run_id" not in self.state:
            description = read_json(self.folder.path / TRIAL)
            tags = {
                "mlflow.parentRunId": self.parent["run_id"],
                "orchestrator.run": self.parent["directory"],
                "orchestrator.trial": description["id"],
                **description["tags"],
            }
            run_id = self._made_before(description["id"])
            if run_id is None:
                made = self.client.create_run(self.parent["experiment_id"], run_name=description["id"], tags=tags)
                run_id = made.info.run_id
            log_params(self.client, run_id, description["params"], self.notes)
            self._note(run_id=run_id)
        elif self.state["ended"] is not None and self._result()[0] is None:
            self.client.update_run(self.state["run_id"], status="RUNNING")  # killed, now resumed
            self._note(ended=None)

    def _made_before(self, trial: str) -> str | None:
        """The run of this trial that a shipper made which was killed before it could note so."""
        where = f"tags.`mlflow.parentRunId` = '{self.parent['run_id']}'"
        quote = "'" if "'" not in trial else '"'
        if quote not in trial:
            where += f" and tags.`orchestrator.trial` = {quote}{trial}{quote}"
        token = None
        while True:
            found = self.client.search_runs([self.parent["experiment_id"]], where, page_token=token)
            for run in found:
                if run.data.tags.get("orchestrator.trial") == trial:
                    return run.info.run_id
            token = found.token
            if not token:
                return None

    def _send(self, metrics: list[Any], mark: dict[str, Any]) -> None:
        last = metrics[-1]
        self._note(batch={"mark": mark, "key": last.key, "step": last.step})
        self._log(metrics)
        self._note(batch=None, mark=mark)

    def _log(self, metrics: list[Any]) -> None:
        """Send a batch; where the server refuses it, name by name, so that one bad name loses no other."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.log_batch(self.state["run_id"], metrics=metrics)
        except MlflowException as error:
            keys = dict.fromkeys(metric.key for metric in metrics)
            if error.error_code not in _INVALID or not _is_active(self.client, self.state["run_id"]):
                raise
            if len(keys) > 1:
                for key in keys:
                    self._log([metric for metric in metrics if metric.key == key])
                return
            self._dropped |= keys.keys()
            self.notes.say(f"MLflow refuses the metric {metrics[0].key!r}, which stays on disk alone: {_said(error)}")

    def _settle(self) -> None:
        """Find out whether a batch that was under way when something failed has arrived: a batch does so whole."""
        batch = self.state["batch"]
        if batch is None:
            return
        history = self.client.get_metric_history(self.state["run_id"], batch["key"])
        arrived = any(point.step == batch["step"] for point in history)
        self._note(batch=None, **({"mark": batch["mark"]} if arrived else {}))

    def _batches(self) -> Iterator[tuple[list[Any], dict[str, Any]]]:
        """New metrics in batches, each with the mark it leads to."""
        from mlflow.entities import Metric

        mark = self.state["mark"]
        step, names = mark["step"], set(mark["names"])
        batch: list[Any] = []
        reached = mark
        for row in self._rows.new():
            spelt = {self._spell(name): value for name, value in row.metrics.items()}  # of rows sent before, too
            if row.step < step:
                continue
            if row.step > step:
                step, names = row.step, set()
            fresh = {key: value for key, value in spelt.items() if key not in names and key not in self._dropped}
            if len(batch) + len(fresh) > _BATCH and batch:
                yield batch, reached
                batch = []
            names |= fresh.keys()
            batch += [Metric(key, value, row.stamp, step) for key, value in fresh.items()]
            reached = {"step": step, "names": sorted(names)}
            while len(batch) > _BATCH:  # one row with more than a batch
                yield batch[:_BATCH], {"step": step, "names": sorted(metric.key for metric in batch[:_BATCH])}
                batch = batch[_BATCH:]
        if batch:
            yield batch, reached

    def _spell(self, name: str) -> str:
        found = self._names.spell(name)
        if found != name:
            self.notes.say(f"metric {name[:80]!r} is {found[:80]!r} in MLflow, which takes no such name")
        return found

    def _result(self) -> tuple[dict[str, Any] | None, str | None]:
        """The trial's result with a stamp that changes when it does; a damaged one is none."""
        path = self.folder.result
        try:
            result = read_json(path)
            return (None, None) if result is None else (result, f"{result['status']} {path.stat().st_mtime_ns}")
        except (ValueError, LookupError, TypeError):
            self.notes.say(f"trial {self.name}: {path} is damaged, so that its end does not reach MLflow")
            return None, None

    def _note(self, **changes: Any) -> None:
        self.state |= changes
        write_json(self.path, self.state)


def read_state(path: Path, notes: Notes) -> dict[str, Any]:
    """How far something was sent; from the beginning where that cannot be read."""
    try:
        found = read_json(path)
        if found is None or isinstance(found, dict):
            return found or {}
    except ValueError:
        pass  # said below
    notes.say(f"{path} is damaged; what it was about is looked up in MLflow, or sent anew")
    return {}


def log_params(client: Any, run: str, params: Mapping[str, str], notes: Notes) -> None:
    """Send settings; one that the server refuses is said, and the others sent."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    names = Names()
    entities = [Param(names.spell(name), value[:6000]) for name, value in params.items()]
    for start in range(0, len(entities), _PARAMS):
        batch = entities[start : start + _PARAMS]
        try:
            client.log_batch(run, params=batch)
        except MlflowException as refusal:
            if refusal.error_code not in _INVALID or not _is_active(client, run):
                raise
            for one in batch:
                try:
                    client.log_batch(run, params=[one])
                except MlflowException as error:
                    if error.error_code not in _INVALID:
                        raise
                    notes.say(f"MLflow refuses the parameter {one.key!r}: {_said(error)}")


def attach(client: Any, run: str, path: Path, notes: Notes) -> None:
    """Send a file, if it is there. Where artefacts cannot be written it stays in the run's folder, which is said."""
    if not path.exists():
        return
    try:
        client.log_artifact(run, str(path))
    except OSError as error:
        if error.errno is None:  # of the way to a server: tried again
            raise
        notes.say(f"{path} does not reach MLflow's artefacts: {Failure.of(error).reason}")


def _is_active(client: Any, run: str) -> bool:
    """Whether a run takes anything at all: one that was deleted does not, whatever the names."""
    return client.get_run(run).info.lifecycle_stage == "active"


def _said(error: Exception) -> str:
    return (Failure.of(error).message or type(error).__name__).splitlines()[0][:300]  # which hides passwords
