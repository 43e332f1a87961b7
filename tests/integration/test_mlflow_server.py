"""A real MLflow server over HTTP, killed and started again while a sweep runs on Ray Tune."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import ladder
import pytest

from orchestrator.testing import make_plan

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("mlflow server")]


class Server:
    """``mlflow server`` on sqlite, on a free port of this machine."""

    def __init__(self, folder: Path):
        self.port = _free_port()
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        files = ["--artifacts-destination", str(self.folder / "artifacts")]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *files, *where],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait(self._answers, 180)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


def _free_port() -> int:
    """A port below those the system hands out by itself: tests side by side, Ray among them, would take one of those
    while the server is down."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("none of 100 ports is free")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    yield made
    made.kill()


def _wait(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, condition
        time.sleep(0.2)


def test_a_server_killed_in_mid_run_gets_every_metric_when_it_is_back(tmp_path, server):
    environment = ladder.install(tmp_path / "plugins")
    file = tmp_path / "ladder.yaml"
    file.write_text(
        json.dumps(
            ladder.experiment(
                {"seconds": 0.01},
                arms={"one": {}, "two": {"optimizer": {"lr": 0.01}}},
                schedule={"steps": 200, "tasks_per_step": 2},
                evaluation={"every": 50, "tasks": 4, "samples": 1},
                tracking={"uri": server.uri, "experiment": "ladders", "transcripts": 1},
                resources={"concurrent": 1},
            )
        )
    )
    driver = ladder.start_command("run", file, "--runs", tmp_path / "runs", environment=environment)
    run = ladder.run_directory(tmp_path / "runs", driver)
    first = run / "trials" / "one-s0"
    _wait(
        lambda: (
            (first / "mlflow.json").exists() and json.loads((first / "mlflow.json").read_text())["mark"]["step"] > 0
        ),
        180,
    )

    server.kill()
    log = run / "mlflow" / "shipper.log"
    _wait(lambda: "nothing can be sent for now" in log.read_text(), 60)
    down_at = sum(1 for _ in (first / "metrics.jsonl").open())
    _wait(lambda: (first / "result.json").exists() or sum(1 for _ in (first / "metrics.jsonl").open()) > down_at, 60)
    server.start()
    _, err = driver.communicate(timeout=240)

    assert driver.returncode == 0, err[-4000:]
    client = mlflow.MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name("ladders")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {run.name, "one-s0", "two-s0"}
    parent = runs[run.name]
    assert {found.info.status for found in runs.values()} == {"FINISHED"}
    assert {"plan.json", "report.html", "report.md", "report.json"} <= {
        artifact.path for artifact in client.list_artifacts(parent.info.run_id)
    }
    for name in ("one-s0", "two-s0"):
        child = runs[name]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.params["optimizer.lr"] == ("0.01" if name == "two-s0" else "0.0001")
        assert [a.path for a in client.list_artifacts(child.info.run_id)] == ["rollouts.jsonl"]
        for key, kind in (("rollout/reward/mean", "step"), ("eval/reward/mean", "evaluation")):
            sent = client.get_metric_history(child.info.run_id, key)
            written = {
                step: metrics[key]
                for row, step, metrics in ladder.steps_of(run / "trials" / name)
                if row == kind and key in metrics
            }
            assert len(sent) == len(written) > 4
            assert {point.step: point.value for point in sent} == pytest.approx(written)
    assert "the server is back; everything was sent" in log.read_text()


def test_what_a_dead_server_did_not_get_is_sent_afterwards(tmp_path, server):
    from orchestrator_plugins.mlflow import companion, settings

    run = tmp_path / "runs" / "late-1"
    trial = run / "trials" / "a"
    trial.mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    settings.describe_sweep(make_plan(name="late", tracking={"uri": server.uri}), run)
    settings.write_json(trial / "tracking.json", {"id": "a", "tags": {"arm": "a"}, "params": {"x": "1"}})
    rows = [{"step": s, "kind": "step", "time": s, "metrics": {"loss/policy": s / 2}} for s in range(1, 1001)]
    (trial / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (trial / "result.json").write_text(json.dumps({"status": "stopped"}))

    companion.sync(run)
    companion.sync(run)  # nothing is left to send

    client = mlflow.MlflowClient(tracking_uri=server.uri)
    runs = client.search_runs([client.get_experiment_by_name("late").experiment_id])
    child = next(found for found in runs if found.info.run_name == "a")
    sent = client.get_metric_history(child.info.run_id, "loss/policy")
    assert sorted((point.step, point.value) for point in sent) == [(s, s / 2) for s in range(1, 1001)]
    assert (child.info.status, child.data.tags["status"]) == ("FINISHED", "stopped")
