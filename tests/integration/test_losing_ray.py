"""One sweep that loses Ray, is ended by a signal and sees every shutdown of Ray fail: its results are those of an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import ladder
import pytest

from orchestrator.runs.layout import RunFolder

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(600)]

FAILING_SHUTDOWN = """
import sys, threading, time
if "orchestrator.runners.child" in sys.orig_argv:
    def replace():
        import os
        while not hasattr(sys.modules.get("ray"), "shutdown"):
            time.sleep(0.01)
        sys.modules["ray"].shutdown = lambda: os._exit(7)
    threading.Thread(target=replace, daemon=True).start()
"""


def test_a_sweep_survives_the_loss_of_ray_a_signal_and_shutdowns_that_fail(tmp_path):
    environment = ladder.install(tmp_path / "plugins")
    (tmp_path / "plugins" / "sitecustomize.py").write_text(FAILING_SHUTDOWN)
    file = tmp_path / "ladder.yaml"
    arms = {"plain": {}, "fast": {"optimizer": {"lr": 0.1}}}
    file.write_text(
        json.dumps(
            ladder.experiment(
                {"bonus": 1.0, "seconds": 0.05},
                arms=arms,
                schedule={"steps": 9, "tasks_per_step": 2},
                checkpoints={"every": 4},
                evaluation={"every": 3, "tasks": 4, "samples": 4},
                resources={"concurrent": 2, "cpus": 0.5},
            )
        )
    )
    driver = ladder.start_command("run", file, "--runs", tmp_path / "runs", environment=environment)
    run = ladder.run_directory(tmp_path / "runs", driver)

    _wait(lambda: _reports(run, 2), driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    ports = {place for process in family for place in _listening(process)}
    niceness = {process.nice() for process in family}
    (raylet,) = [process for process in family if process.name() == "raylet"]
    raylet.send_signal(signal.SIGKILL)
    lost = time.monotonic()
    _wait(lambda: sum(record["kind"] == "sweep" for record in ladder.journal(run)) == 2, driver)
    anew = time.monotonic() - lost
    _wait(lambda: _reports(run, 3), driver)
    driver.send_signal(signal.SIGTERM)
    told = time.monotonic()
    _, err = driver.communicate(timeout=60)
    took = time.monotonic() - told
    again = ladder.start_command("resume", run, environment=environment)
    _, said = again.communicate(timeout=240)

    assert ports
    assert ports <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert niceness == {os.nice(0)}
    assert anew < 30
    assert "Ray's raylet was killed by SIGKILL; starting Ray anew (1 of 2)" in err
    assert driver.returncode == 128 + signal.SIGTERM
    assert took < 25
    assert f"ended by SIGTERM; continue with: orchestrator resume {run}" in err
    assert "Traceback" not in err
    assert again.returncode == 0, said[-4000:]
    assert (run / "report.html").exists()
    for trial in RunFolder(run).trials():
        rows = ladder.steps_of(trial.path)
        assert [step for kind, step, _ in rows if kind == "step"] == list(range(1, 10))
        assert [step for kind, step, _ in rows if kind == "evaluation"] == [0, 3, 6, 9]
    assert not RunFolder(run).scratch.exists()


def _reports(run, count: int) -> bool:
    return sum(record["kind"] == "report" for record in ladder.journal(run)) >= count


def _wait(come: Callable[[], bool], driver) -> None:
    deadline = time.monotonic() + 120
    while not come():
        assert driver.poll() is None, driver.stderr.read()[-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _listening(process) -> set[str]:
    try:
        found = process.net_connections("tcp")
    except psutil.Error:
        return set()
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}
