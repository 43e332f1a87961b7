"""A part of the Ray that is started here is missed as soon as it is gone, also before Ray is up."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

ray = pytest.importorskip("ray")

from orchestrator.runners import cluster  # noqa: E402
from orchestrator.runners.losses import Kind  # noqa: E402


@pytest.mark.parametrize(
    ("up", "kind", "said"),
    [
        (False, Kind.START, "Ray's gcs_server was killed by SIGKILL while Ray started"),
        (True, Kind.NODE, "Ray's gcs_server was killed by SIGKILL"),
    ],
)
def test_a_part_of_ray_that_is_killed_is_missed_at_once(monkeypatch, up, kind, said):
    monkeypatch.setattr(cluster, "_LOOK", 0.02)
    monkeypatch.setattr(ray._private.worker, "_global_node", None)
    started, over, losses = threading.Event(), threading.Event(), []
    if up:
        started.set()
    guard = threading.Thread(target=cluster._guard, args=(losses.append, started, over), daemon=True)
    guard.start()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    node = SimpleNamespace(all_processes={"gcs_server": [SimpleNamespace(process=process)]})
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    process.kill()

    guard.join(10)

    assert not guard.is_alive()
    assert [(loss.kind, loss.message) for loss in losses] == [(kind, said)]
