"""Starts the shipper beside the driver, and waits for it at the end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.api import OrchestratorError

from .notes import read_notes
from .settings import SWEEP, describe_sweep

if TYPE_CHECKING:
    from orchestrator.api import Plan

logger = logging.getLogger(__name__)

LOG = "mlflow/shipper.log"
_WAIT = 600.0  # seconds for the last rows and artefacts; the shipper itself gives up sooner on a dead server
_ENVIRONMENT = {  # the user's own settings win
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "OMP_NUM_THREADS": "1",
}

_running: dict[Path, subprocess.Popen[bytes]] = {}
_known: dict[Path, list[str]] = {}  # sentences said before this driver


def start(plan: Plan, directory: Path) -> None:
    """Start the shipper of a run, unless tracking is off. It outlives a killed driver long enough to say so."""
    directory = directory.resolve()
    if describe_sweep(plan, directory) and directory not in _running:
        _known[directory] = read_notes(directory)
        _running[directory] = _launch(directory, "watch", stdin=subprocess.PIPE)


def finish(directory: Path) -> None:
    """Tell the shipper that the sweep is over and wait until it has sent everything, or given up."""
    directory = directory.resolve()
    process = _running.pop(directory, None)
    if process is None:
        return
    assert process.stdin is not None
    try:
        process.stdin.write(b"end\n")
        process.stdin.close()
    except BrokenPipeError:
        logger.debug("the MLflow shipper of %s had ended before the sweep", directory)
    try:
        code = process.wait(_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    _repeat(directory, _known.pop(directory))
    if code:
        logger.warning(
            "MLflow did not get everything of %s (see %s); nothing is lost. Send the rest with: "
            "orchestrator mlflow-sync %s",
            directory,
            directory / LOG,
            directory,
        )


def sync(directory: Path) -> None:
    """Send what is missing of a run that ended.

    :raises OrchestratorError: the run was never tracked, or the server refuses or cannot be reached
    """
    if not (directory / SWEEP).exists():
        raise OrchestratorError(f"{directory} holds no {SWEEP}: it is no run, or ran with tracking.enabled: false")
    directory = directory.resolve()
    known = read_notes(directory)
    code = _launch(directory, "sync", stdin=subprocess.DEVNULL).wait()
    _repeat(directory, known)
    if code:
        raise OrchestratorError(f"MLflow did not get everything of {directory}; see {directory / LOG}")


def _repeat(directory: Path, known: list[str]) -> None:
    """Say aloud what the shipper had to say since."""
    for sentence in read_notes(directory):
        if sentence not in known:
            logger.warning("MLflow: %s", sentence)


def _launch(directory: Path, mode: str, *, stdin: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # the shipper works in another folder
    with (directory / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator_plugins.mlflow.shipper", mode, str(directory)],
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=_ENVIRONMENT | dict(os.environ) | {"PYTHONPATH": path},
            start_new_session=True,  # an interrupt is for the driver; the shipper hears of it through its pipe
        )
