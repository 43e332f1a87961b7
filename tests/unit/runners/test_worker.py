"""What a worker leaves behind depends on who ended the trial: the sweep, or somebody who wants to resume it."""

import ctypes
import json
import threading
from pathlib import Path

import pytest

pytest.importorskip("ray")

from orchestrator.contract.plan import TrialSpec
from orchestrator.contract.settings import Settings
from orchestrator.contract.types import TrialResult
from orchestrator.errors import Failure, TrialError, TrialInterrupted, TrialStopped
from orchestrator.runners import trial as trials
from orchestrator.runners.worker import _Play, _return_memory
from orchestrator.runs import results
from orchestrator.runs.layout import RunFolder


def _play(directory, monkeypatch):
    """A trial that reports once and ends as the report tells it to; returns it, standing at its report, and its end."""
    ended = []

    def run_spec(spec, run, fingerprint, report, registry, watch):
        try:
            report(2, {"eval/reward/mean": 0.5})
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    monkeypatch.setattr(trials, "run_spec", run_spec)
    settings = Settings.model_validate({"name": "x", "environment": {"use": "y"}})
    spec = TrialSpec(id="a", arm="a", seed=0, settings=settings)
    play = _Play({"spec": json.dumps(spec.to_json()), "directory": str(directory), "fingerprint": None})
    assert play.next_message()["kind"] == "report"
    return play, ended


def test_a_trial_that_the_sweep_stops_ends_as_stopped(tmp_path, monkeypatch):
    play, ended = _play(tmp_path, monkeypatch)
    stopped = TrialResult(trial="a", arm="a", seed=0, status="stopped", step=2)
    results.write_result(RunFolder(tmp_path).trial("a"), stopped)

    assert play.leave()

    assert ended == [TrialStopped.__name__]


def test_a_trial_whose_arm_is_given_up_ends_as_failed_with_the_reason(tmp_path, monkeypatch):
    play, ended = _play(tmp_path, monkeypatch)
    failure = Failure(type="TrialError", message="arm a measures no eval/x")
    failed = TrialResult(trial="a", arm="a", seed=0, status="failed", step=2, error=failure)
    results.write_result(RunFolder(tmp_path).trial("a"), failed)

    assert play.leave()

    assert ended == [TrialError.__name__]


def test_a_trial_that_is_interrupted_is_not_stopped(tmp_path, monkeypatch):
    play, ended = _play(tmp_path, monkeypatch)

    assert play.leave()

    assert ended == [TrialInterrupted.__name__]
    assert results.read_result(RunFolder(tmp_path).trial("a")) is None


def test_a_worker_gives_back_what_a_trial_freed():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library keeps no heap per thread")
    kept = []

    def trial():
        blocks = [bytearray(4096) for _ in range(50_000)]  # 200 MB in the thread's own heap
        kept.append(bytearray(4096))  # above them, so that nothing is given back by itself
        del blocks

    before = _resident()
    thread = threading.Thread(target=trial)
    thread.start()
    thread.join()
    freed = _resident()

    _return_memory()

    assert freed - before > 150
    assert _resident() - before < 50


def _resident():
    """Mebibytes of memory that this process has."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
