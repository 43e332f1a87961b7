"""A run has one driver and a trial one player; whoever is dead holds nothing."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.contract.plan import TrialSpec
from orchestrator.errors import OrchestratorError, TrialError
from orchestrator.plugging.registry import load_registry
from orchestrator.runners import local
from orchestrator.runs import fence
from orchestrator.runs.fence import driving, running
from orchestrator.runs.layout import RunFolder, TrialFolder
from orchestrator.runs.store import save_plan
from orchestrator.testing import make_plan, make_settings


def _other(code, *arguments):
    """Another process that prints a line when it has done what the test waits for."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    process.line = process.stdout.readline().strip()
    return process


HOLD = """
import sys
from pathlib import Path
from orchestrator.runs.fence import driving
with driving(Path(sys.argv[1])) as held:
    print(held.pid, flush=True)
    sys.stdin.readline()
"""

HOLD_AND_FORK = """
import os, signal, sys, time
from pathlib import Path
from orchestrator.runs.fence import driving
with driving(Path(sys.argv[1])):
    driver = os.getpid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.kill(driver, signal.SIGKILL)
    time.sleep(60)
"""


def test_a_run_has_one_driver_and_says_who_it_is(tmp_path):
    first = _other(HOLD, tmp_path)

    with pytest.raises(OrchestratorError) as refused, driving(tmp_path):
        pass
    first.communicate("end\n", timeout=20)
    with driving(tmp_path) as second:
        pass

    expected = (
        rf"{tmp_path} is being run by process {first.line} on {socket.gethostname()}, since 20\d\d-\d\d-\d\dT\S+; wait "
        rf"until it has ended, or end that process, then resume. How far it is: orchestrator report {tmp_path}"
    )
    assert re.fullmatch(expected, str(refused.value))
    assert (second.attempt, second.pid) == (2, os.getpid())


def test_a_killed_driver_holds_nothing_even_where_a_fork_of_it_lives_on(tmp_path):
    killed = _other(HOLD_AND_FORK, tmp_path)
    killed.wait()
    orphan = int(killed.line)
    try:
        os.kill(orphan, 0)  # it is there

        with driving(tmp_path) as held:
            assert held.attempt == 2
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_a_lock_that_is_let_go_in_a_moment_is_waited_for(tmp_path):
    """A driver killed as it forks leaves a process that has not yet run, and holds the file until it does."""
    with driving(tmp_path):
        heir = os.open(RunFolder(tmp_path).lock, os.O_RDWR)
    fcntl.flock(heir, fcntl.LOCK_EX)
    timer = threading.Timer(0.4, os.close, [heir])
    timer.start()

    with driving(tmp_path) as held:
        assert held.attempt == 2
    timer.join()


def test_a_fork_does_not_let_go_what_its_parent_holds(tmp_path):
    with driving(tmp_path):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)

        with pytest.raises(OrchestratorError, match=f"process {os.getpid()}"), driving(tmp_path):
            pass


def test_two_threads_of_a_process_exclude_each_other(tmp_path):
    folder, order = TrialFolder(tmp_path / "trials" / "a"), []

    def play():
        with running(folder):
            order.append("second")

    with running(folder):
        thread = threading.Thread(target=play)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]


def test_a_trial_somebody_keeps_is_an_error_that_names_him(tmp_path):
    folder = TrialFolder(tmp_path / "trials" / "a")
    said = rf"still being run by process {os.getpid()} on .*, after 0 s"
    with running(folder), pytest.raises(TrialError, match=said), running(folder, wait=0.0):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "\0\xff", '{"attempt": "x"}'])
def test_a_damaged_lock_file_holds_nobody_up(tmp_path, content):
    RunFolder(tmp_path).lock.write_text(content)

    with driving(tmp_path) as held:
        assert held.attempt == 1
        assert json.loads(RunFolder(tmp_path).lock.read_text())["pid"] == os.getpid()


def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", none)

    with (
        pytest.raises(
            OrchestratorError, match=r"cannot be locked: .*Operation not supported.*a file system with locks"
        ),
        driving(tmp_path),
    ):
        pass


def test_resume_of_a_live_run_is_refused_with_2_and_touches_nothing(tmp_path):
    run = tmp_path / "run"
    registry = load_registry()
    save_plan(dataclasses.replace(make_plan(name="p"), fingerprint=registry.manager.fingerprint()), run)
    driver = _other(HOLD, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    done = CliRunner().invoke(cli.app, ["resume", "--local", str(run)])

    assert done.exit_code == 2
    assert f"is being run by process {driver.line}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    driver.communicate("end\n", timeout=20)


def test_a_trial_that_another_process_plays_is_not_played_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fence, "_TRIAL_WAIT", 0.0)
    specs = tuple(TrialSpec(id=name, arm=name, seed=0, settings=make_settings()) for name in "ab")
    registry = load_registry()
    plan = dataclasses.replace(make_plan(name="p"), trials=specs, fingerprint=registry.manager.fingerprint())
    folder = RunFolder(tmp_path).trial("a")

    with running(folder):
        taken, other = local.run(plan, tmp_path, registry)

    assert taken.status == "failed"
    assert "still being run by process" in taken.error.message
    assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert other.trial == "b"
    assert RunFolder(tmp_path).trial("b").result.exists()
