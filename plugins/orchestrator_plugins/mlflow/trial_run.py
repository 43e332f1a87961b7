"""One trial's nested run: rows of metrics in order, each name once per step, whatever crashed in between."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.api import Failure, TrialFolder, write_json

from .settings import TRIAL, read_json

logger = logging.getLogger("orchestrator_plugins.mlflow")

STATE = "mlflow.json"  # in a trial's directory
_BATCH = 1000  # metrics MLflow takes in one call
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "PERMISSION_DENIED")
_ENDS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}


class TrialRun:
    """Sends one trial.

    How far it came is the *mark*: the highest step sent, and the names sent for that step. A resumed trial writes the
    rows after its checkpoint again; those up to the mark are left out, so no step is doubled.
    """

    def __init__(self, folder: TrialFolder, client: Any, parent: Mapping[str, Any]):
        self.folder, self.client, self.parent = folder, client, parent
        self.path = folder.path / STATE
        self.state = read_json(self.path) or {"mark": {"step": -1, "names": []}, "batch": None, "ended": None}
        self.status: str | None = None  # of the trial's result
        self._offset, self._tail = 0, b""  # where the next row begins, and the row before it
        self._refused = False

    def ship(self) -> None:
        """Send new rows; when the trial has ended and all are sent, its transcripts and its end.

        :raises Exception: whatever the server or the way to it raised
        """
        if self._refused:
            return
        from mlflow.exceptions import MlflowException

        sent = False
        try:
            self._ship()
            sent = True
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            self._refused = True
            logger.error("the server refuses trial %s, its metrics stay in %s: %s", self.name, self.folder.path, error)
        finally:
            if not sent:
                self._offset, self._tail = 0, b""  # read again what was read and not sent

    @property
    def name(self) -> str:
        """The trial's id."""
        return self.folder.path.name

    def kill(self) -> None:
        """Mark the run as killed, unless its trial has ended."""
        if self.status is None and "run_id" in self.state and not self._refused:
            self.client.set_terminated(self.state["run_id"], "KILLED")
            self._note(ended="KILLED")

    def _ship(self) -> None:
        result, stamp = self._result()  # before the rows: what it ends was written before it
        self.status = None if result is None else result["status"]
        if result is not None and self.state["ended"] == stamp and not self._has_news():
            return
        self._open()
        self._settle()
        for metrics, mark in self._batches():
            self._send(metrics, mark)
        if result is not None and self.state["ended"] != stamp:
            if self.folder.rollouts.exists():
                self.client.log_artifact(self.state["run_id"], str(self.folder.rollouts))
            failure = Failure.from_json(result.get("error"))
            if failure is not None:
                self.client.set_tag(self.state["run_id"], "error", str(failure)[:5000])
            self.client.set_tag(self.state["run_id"], "status", result["status"])
            self.client.set_terminated(self.state["run_id"], _ENDS.get(result["status"], "FINISHED"))
            self._note(ended=stamp)

    def _open(self) -> None:
        from mlflow.entities import Param

        if "run_id" not in self.state:
            description = read_json(self.folder.path / TRIAL)
            tags = {
                "mlflow.parentRunId": self.parent["run_id"],
                "orchestrator.run": self.parent["directory"],
                "orchestrator.trial": description["id"],
                **description["tags"],
            }
            where = f"tags.`orchestrator.trial` = '{description['id']}' and tags.`mlflow.parentRunId` = '{self.parent['run_id']}'"
            found = self.client.search_runs([self.parent["experiment_id"]], where)
            run = (
                found[0]
                if found
                else self.client.create_run(self.parent["experiment_id"], run_name=description["id"], tags=tags)
            )
            params = [Param(_name(key)[:250], value[:6000]) for key, value in description["params"].items()]
            for start in range(0, len(params), 100):
                self.client.log_batch(run.info.run_id, params=params[start : start + 100])
            self._note(run_id=run.info.run_id)
        elif self.state["ended"] is not None and self._result()[0] is None:
            self.client.update_run(self.state["run_id"], status="RUNNING")  # killed, now resumed
            self._note(ended=None)

    def _send(self, metrics: list[Any], mark: dict[str, Any]) -> None:
        last = metrics[-1]
        self._note(batch={"mark": mark, "key": last.key, "step": last.step})
        self.client.log_batch(self.state["run_id"], metrics=metrics)
        self._note(batch=None, mark=mark)

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
        for row in self._rows():
            if row["step"] < step:
                continue
            if row["step"] > step:
                step, names = row["step"], set()
            fresh = {_name(key): value for key, value in row["metrics"].items() if _name(key) not in names}
            if len(batch) + len(fresh) > _BATCH and batch:
                yield batch, reached
                batch = []
            names |= fresh.keys()
            stamp = int(row["time"] * 1000)
            batch += [Metric(key, float(value), stamp, step) for key, value in fresh.items()]
            reached = {"step": step, "names": sorted(names)}
        if batch:
            yield batch, reached

    def _has_news(self) -> bool:
        try:
            return self.folder.metrics.stat().st_size != self._offset
        except FileNotFoundError:
            return False

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Complete rows not read yet. A file that was cut back (a resumed trial) is read from its beginning."""
        try:
            file = self.folder.metrics.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(max(0, self._offset - len(self._tail)))
            if file.read(len(self._tail)) != self._tail:
                self._offset = 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                self._tail = line
                yield json.loads(line)

    def _result(self) -> tuple[dict[str, Any] | None, str | None]:
        """The trial's result with a stamp that changes when it does."""
        path = self.folder.result
        result = read_json(path)
        return (None, None) if result is None else (result, f"{result['status']} {path.stat().st_mtime_ns}")

    def _note(self, **changes: Any) -> None:
        self.state |= changes
        write_json(self.path, self.state)


def _name(key: str) -> str:
    """A name as MLflow takes it: letters, digits, ``_ - . / :`` and space."""
    return re.sub(r"[^\w\-./: ]", "_", key, flags=re.ASCII)
