"""Settings every test runs under: one torch thread, no telemetry, hypothesis without deadlines; the longest tests first."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # the user's own, which runs would go to
os.environ.pop("MLFLOW_EXPERIMENT_NAME", None)

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "default", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("default")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run one test more than there are cores: the long ones wait, for Ray, for a server, for a process to die."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what is marked slow first, so that no core is idle while the last of it ends."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
