"""A disk that takes no more: one line that names the file, exit 2, and a run that goes on once there is room."""

import errno
import json
import logging
import resource
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.runs.atomic import write_text
from orchestrator.runs.ledger import Ledger

FILE = """
name: town
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
schedule: {steps: 2, tasks_per_step: 1}
sampling: {max_tokens: 2, max_turns: 1}
evaluation: {tasks: 1, samples: 1, first: false}
checkpoints: {every: 1}
tracking: {enabled: false}
"""


@contextmanager
def room_for(size):
    """No file may grow beyond ``size`` bytes: the kernel refuses the write, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "town.yaml").write_text(FILE)
    return lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_a_run_that_cannot_be_begun_leaves_nothing(asked, tmp_path):
    with room_for(500):
        done = asked("run", "town.yaml", "--local")

    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "a run cannot be begun here: File too large; make room" in done.stderr
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_whose_disk_is_full_is_resumed_with_room(asked, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    with room_for(14_000):
        done = asked("run", "town.yaml", "--local")
    [run] = (tmp_path / "runs").iterdir()

    assert done.exit_code == 2, done.output
    assert done.stderr.splitlines()[-1].startswith(f"✗ {run.relative_to(tmp_path)}/figures/")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.output + caplog.text
    assert not [left for left in run.rglob(".*") if left.name != ".lock"]

    resumed = asked("resume", run, "--local")

    assert resumed.exit_code == 0, resumed.output
    [metrics] = run.glob("trials/*/metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "step"] == [1, 2]
    assert (run / "report.html").is_file()


def test_an_error_of_a_full_disk_names_the_file(tmp_path):
    ledger = Ledger(tmp_path / "metrics.jsonl")
    write_text(tmp_path / "a.json", "before")
    with room_for(10):
        with pytest.raises(OSError, match="File too large") as written:
            write_text(tmp_path / "a.json", "x" * 20)
        with pytest.raises(OSError, match="File too large") as appended:
            ledger.write({"step": 1, "text": "x" * 20})

    assert (written.value.errno, written.value.filename) == (errno.EFBIG, str(tmp_path / "a.json"))
    assert (appended.value.errno, appended.value.filename) == (errno.EFBIG, str(ledger.path))
    assert (tmp_path / "a.json").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "metrics.jsonl"]
