"""What Tune writes beside a sweep does not pile up."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("ray")

from orchestrator.runners import tune


def test_folders_of_dead_drivers_are_removed_and_those_of_the_living_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [
        f"orchestrator-tune-{dead.pid}-x",
        f"orchestrator-tune-{os.getpid()}-x",
        "orchestrator-tune-of-0.1",
        "mine",
    ]
    for name in names:
        (tmp_path / name / "tune").mkdir(parents=True)

    made = Path(tune._scratch())

    assert made.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], made.name}
