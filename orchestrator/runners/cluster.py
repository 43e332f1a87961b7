"""Starts Ray on this machine, or joins the cluster an experiment names; notices when the Ray that was started is lost."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.contract.settings import Resources
from orchestrator.errors import ConfigError, LostError, Problem
from orchestrator.runners import losses
from orchestrator.runners.losses import Kind, Loss

for _name, _value in {  # read by Ray when it is imported or started; a user's own setting wins
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 lets a sweep starve beside any other work
    "RAY_worker_register_timeout_seconds": "300",  # 60 is too little on a machine that is busy
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # runners.leaving catches signals
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "31536000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray._private import ray_constants  # noqa: E402

logger = logging.getLogger(__name__)

_LOOK = 0.5  # seconds between looks at Ray's processes
_VITAL = ("gcs_server", "raylet")  # Ray's own agents end the raylet when they are lost


@contextmanager
def connected(resources: Resources, lost: Callable[[Loss], None]) -> Iterator[None]:
    """Connect to the cluster the experiment names, or start one on this machine and end it afterwards.

    :param lost: called, from a thread, when a Ray that was started here loses one of its processes
    :raises ConfigError: there is no such cluster
    :raises LostError: Ray did not start on this machine
    """
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():  # the caller's own
        yield
        return
    threads = str(max(1, int(resources.cpus)))
    before = os.environ.get("OMP_NUM_THREADS")
    up, over = threading.Event(), threading.Event()
    if resources.address is None:  # from the first: Ray's start waits a minute for a part that is gone
        threading.Thread(target=_guard, args=(lost, up, over), name="ray guard", daemon=True).start()
    try:
        if resources.address is not None:
            _join(resources.address, {"RAY_CHDIR_TO_TRIAL_DIR": "0", "OMP_NUM_THREADS": before or threads})
        else:
            os.environ["OMP_NUM_THREADS"] = before or threads  # inherited by workers
            _start()
        up.set()
    except BaseException:
        over.set()
        raise
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
    try:
        yield
    finally:
        over.set()
        ray.shutdown()


def slots(resources: Resources) -> int:
    """How many trials fit at once.

    :raises ConfigError: none does
    """
    have = ray.cluster_resources()
    wanted = {"CPU": resources.cpus * resources.workers, "GPU": resources.gpus * resources.workers}
    fit = min(int(have.get(kind, 0.0) / amount + 1e-9) for kind, amount in wanted.items() if amount)
    if fit < 1 and resources.address is None:
        raise ConfigError(
            [
                Problem(
                    "resources",
                    f"one trial needs {_amounts(wanted)}, and there is {_amounts({k: have.get(k, 0) for k in wanted})}; "
                    f"lower resources.cpus, resources.gpus or resources.workers, or name a cluster in resources.address",
                )
            ]
        )
    return max(fit, 1)  # a cluster may grow


def _amounts(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {kind}" for kind, amount in amounts.items() if amount or kind == "CPU")


_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _join(address: str, variables: Mapping[str, str]) -> None:
    try:
        ray.init(address=address, runtime_env={"env_vars": dict(variables)}, **_OPTIONS)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            [Problem("resources.address", f"no Ray at {address}: {error}. See: orchestrator doctor")]
        ) from error


def _start() -> None:
    """Start Ray on this machine, reachable from this machine alone.

    Ray listens on the loopback interface where it holds that no cluster can be made, as on macOS; it has no setting.
    """
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool)
    ray_constants.ENABLE_RAY_CLUSTER = False
    began = time.monotonic()
    try:
        ray.init(include_dashboard=False, _node_ip_address="127.0.0.1", **_OPTIONS)
    except Exception as error:  # Ray raises what it likes where it does not come up in time, Exception itself too
        logger.debug("Ray did not start", exc_info=True)
        seconds = time.monotonic() - began
        load = f", load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores" if hasattr(os, "getloadavg") else ""
        said = str(error).strip().partition("\n")[0][:200]
        print(f"Ray did not start: {error!r}", file=sys.stderr)
        raise LostError(
            f"Ray did not start on this machine within {seconds:.0f} s{load} ({said})", Kind.START
        ) from error


def _guard(lost: Callable[[Loss], None], up: threading.Event, over: threading.Event) -> None:
    """Look at the processes of the Ray that this one starts until one of them ends, or Ray is shut down.

    :param up: set once Ray has started
    """
    while not over.wait(_LOOK):
        node: Any = ray._private.worker._global_node  # None until Ray has started its first processes
        for name in _VITAL if node is not None else ():
            for started in node.all_processes.get(name, ()):
                code = started.process.poll()
                if code is not None and not over.is_set():
                    loss = losses.of_process(name, code)
                    lost(loss if up.is_set() else Loss(Kind.START, f"{loss.message} while Ray started"))
                    return
