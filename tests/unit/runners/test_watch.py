"""Between reports, the newest rows of trials and of shared start phases are shown."""

import json
import time

from orchestrator.contract.types import TrialResult
from orchestrator.runners.watch import look, watching
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.results import write_result


class Heard:
    def __init__(self):
        self.updates = []

    def trial_update(self, trial, status, step, metrics):
        self.updates.append((trial, status, step, dict(metrics)))


def _row(path, step):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"step": step, "kind": "step", "metrics": {"x": step / 2}}) + "\n")


def test_trials_and_start_phases_are_shown_where_they_stand(tmp_path):
    for step in (1, 2):
        _row(tmp_path / "trials" / "a-s0" / "metrics.jsonl", step)
    _row(tmp_path / "start" / "abc" / "metrics.jsonl", 7)
    heard = Heard()

    look(tmp_path, ["a-s0", "b-s0"], heard)
    done = TrialResult(trial="start-abc", arm="start", seed=0, status="done", step=7)
    write_result(RunFolder(tmp_path).start("abc"), done)
    look(tmp_path, [], heard)

    assert heard.updates == [
        ("a-s0", "running", 2, {"x": 1.0}),
        ("start-abc", "running", 7, {"x": 3.5}),
        ("start-abc", "done", 7, {"x": 3.5}),
    ]


def test_the_watching_thread_looks_and_ends_with_the_block(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.runners.watch.SECONDS", 0.01)
    _row(tmp_path / "trials" / "a-s0" / "metrics.jsonl", 3)
    heard = Heard()

    with watching(tmp_path, lambda: ["a-s0"], heard):
        deadline = time.monotonic() + 10
        while not heard.updates and time.monotonic() < deadline:
            time.sleep(0.01)
    seen = len(heard.updates)
    time.sleep(0.1)

    assert heard.updates[0] == ("a-s0", "running", 3, {"x": 1.5})
    assert len(heard.updates) == seen
