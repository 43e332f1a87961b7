"""A run that is told to end: trials save at their next step, and whoever reads the output knows how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.runners import leaving
from orchestrator.runs.checkpoint import checkpoints
from orchestrator.runs.layout import RunFolder

SLOW = {
    "name": "slow",
    "environment": {"use": "gymnasium", "id": "CartPole-v1"},
    "policy": {"use": "mlp", "hidden": [4]},
    "recipe": "reinforce",
    "schedule": {"steps": 100_000, "tasks_per_step": 1},
    "evaluation": {"every": 0, "first": False, "tasks": 1, "samples": 1},
    "checkpoints": {"every": 0},
    "tracking": {"enabled": False, "transcripts": 0},
}


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Start a run of many steps and wait until it has taken some; returns a function that does."""

    def start(*wrapper: str) -> tuple[subprocess.Popen, RunFolder]:
        folder = tmp_path_factory.mktemp("leaving")
        (folder / "slow.yaml").write_text(json.dumps(SLOW))
        command = "from orchestrator.cli.main import main; main()"
        run = subprocess.Popen(
            [*wrapper, sys.executable, "-c", command, "run", folder / "slow.yaml", "--runs", folder / "runs"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while not (found := list((folder / "runs").glob("*/trials/*/metrics.jsonl"))) or _steps(found[0]) < 3:
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return run, RunFolder(found[0].parents[2])

    return start


def test_a_signal_saves_the_step_and_says_how_to_resume_and_one_that_is_ignored_stays_ignored(started):
    run, folder = started("nohup")  # which ignores a hangup
    (trial,) = folder.trials()
    run.send_signal(signal.SIGHUP)
    before, deadline = _steps(trial.metrics), time.monotonic() + 60
    while _steps(trial.metrics) < before + 5:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)

    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=25)

    assert run.returncode == 128 + signal.SIGTERM
    assert f"ended by SIGTERM; continue with: orchestrator resume {folder.path}" in err
    assert "Traceback" not in err
    (saved,) = checkpoints(trial.checkpoints)
    assert json.loads(trial.metrics.read_text().splitlines()[-1])["step"] == int(saved.name.rpartition("-")[2])
    assert not trial.result.exists()
    assert not folder.leave.exists()


def test_who_does_not_leave_in_time_is_ended(tmp_path):
    script = tmp_path / "deaf.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from orchestrator.runners import leaving\n"
        "from orchestrator.runs.layout import RunFolder\n"
        "leaving.GRACE = leaving._UNWIND = 0.3\n"
        "with leaving.leaving(RunFolder(Path(sys.argv[1]))):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(9)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )

    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=30, check=False, env=os.environ
    )

    assert done.returncode == 143
    assert f"orchestrator resume {tmp_path}" in done.stderr


def test_a_note_left_by_an_earlier_driver_ends_nothing(tmp_path):
    folder = RunFolder(tmp_path)
    folder.leave.touch()

    with leaving.leaving(folder) as leave:
        asked = leave()
        folder.leave.touch()  # as another process of the run does
        then = leave()

    assert (asked, then) == (False, True)


def test_a_second_signal_raises_at_once(tmp_path):
    with leaving.leaving(RunFolder(tmp_path)) as leave:
        os.kill(os.getpid(), signal.SIGTERM)
        first = leave.signal
        with pytest.raises(leaving.RunInterrupted) as raised:
            os.kill(os.getpid(), signal.SIGTERM)

    assert (first, raised.value.signal) == (signal.SIGTERM, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def _steps(metrics: Path) -> int:
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0
