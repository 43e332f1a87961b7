"""Measures what a trial costs: runs a few of its steps in a process of its own, and leaves nothing behind."""

from __future__ import annotations

import datetime
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.contract.plan import TrialSpec
from orchestrator.contract.settings import Budget, Checkpoints, Settings
from orchestrator.errors import Failure, TrialError, caused_by
from orchestrator.runners.trial import run_spec
from orchestrator.runs import machine
from orchestrator.runs.atomic import write_json
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.ledger import Ledger
from orchestrator.runs.measurements import Measurement

STEPS = 3  # the first warms up, the others are measured
_EVALUATED = 256  # most rollouts of the evaluation
_LAST_LINES = 5  # of what a process said that died without an answer


def measure(settings: Settings, fingerprint: Mapping[str, str]) -> Measurement:
    """Run three steps and one small evaluation of a trial with these settings, without its start phase.

    :param fingerprint: of this process's plugins; the measuring process must find the same ones
    :raises TrialError: the steps failed, or cannot be measured; blamed on the plugin at fault
    """
    if settings.procedure != "train":
        raise TrialError(f"only the procedure 'train' has steps that can be measured, not {settings.procedure!r}")
    if settings.resources.workers > 1:
        raise TrialError(
            f"trials of {settings.resources.workers} workers cannot be measured; "
            "measure with resources.workers=1, or name an earlier run with --like"
        )
    with tempfile.TemporaryDirectory(prefix="orchestrator-measure-") as folder:
        spec = TrialSpec(id="measured", arm="measured", seed=0, settings=shortened(settings))
        request, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        write_json(request, {"spec": spec.to_json(), "fingerprint": dict(fingerprint)})
        code, said = _launch(request, answer)
        try:
            found = json.loads(answer.read_text(encoding="utf-8"))
        except FileNotFoundError:
            died = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            last = "\n".join(said.splitlines()[-_LAST_LINES:])
            raise TrialError(
                f"the measuring process {died}, and left no answer{':' if last else ''}\n{last}".strip()
            ) from None
    failure = Failure.from_json(found.get("failure"))
    if failure is not None:
        raise caused_by(TrialError(failure.reason), failure)
    return Measurement.from_json(found["measurement"])


def shortened(settings: Settings) -> Settings:
    """The settings with three steps and one small evaluation at their end, no start phase, and nothing tracked."""
    evaluation, steps = settings.evaluation, STEPS if settings.schedule.steps else 0
    samples = min(evaluation.samples, _EVALUATED)
    small = {
        "every": 0,
        "first": False,
        "samples": samples,
        "tasks": max(1, min(evaluation.tasks, _EVALUATED // samples)),
        "k": tuple(k for k in evaluation.k if k <= samples) or (1,),
    }
    return settings.model_copy(
        update={
            "start": None,
            "budget": Budget(),
            "checkpoints": Checkpoints(every=0),
            "schedule": settings.schedule.model_copy(update={"steps": steps}),
            "evaluation": evaluation.model_copy(update=small),
            "tracking": settings.tracking.model_copy(update={"enabled": False, "transcripts": 0}),
        }
    )


def main(request: Path, answer: Path) -> None:
    """The measuring process: run what is asked for, and write what it cost, or why it failed."""
    asked = json.loads(request.read_text(encoding="utf-8"))
    try:
        spec = TrialSpec.from_json(asked["spec"])
        found = _run(spec, request.parent, asked["fingerprint"])
    except Exception as error:  # whatever it is, whoever asked decides what becomes of it
        found = Failure.of(error)
    kind = "failure" if isinstance(found, Failure) else "measurement"
    write_json(answer, {kind: found.to_json()})


def _launch(request: Path, answer: Path) -> tuple[int, str]:
    """Run the measuring process with this one's imports; its exit code and what it said."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    command = [sys.executable, "-P", "-m", __name__, str(request), str(answer)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code = process.wait()
        finally:
            with suppress(ProcessLookupError):  # what it started ends with it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return code, said.read().decode(errors="replace")


def _run(spec: TrialSpec, directory: Path, fingerprint: Mapping[str, str]) -> Measurement | Failure:
    _refuse_missing_gpus(spec.settings)
    evaluated: list[float] = []
    began = time.perf_counter()
    result = run_spec(
        spec, directory, fingerprint, report=lambda step, metrics: evaluated.append(time.perf_counter() - began)
    )
    ended = time.perf_counter() - began
    if result.status != "done":
        return result.error or Failure(type="", message=f"the trial was {result.status}")
    rows = list(Ledger(RunFolder(directory).trial(spec.id).metrics).rows())
    steps = [row["metrics"] for row in rows if row["kind"] == "step"]
    [evaluation] = [row["metrics"] for row in rows if row["kind"] == "evaluation"]
    each, tokens = _pace(steps, "cost/seconds"), _pace(steps, "cost/generated_tokens")
    until = steps[-1]["cost/seconds"] if steps else 0.0
    return Measurement(
        start_seconds=max(0.0, evaluated[-1] - evaluation["cost/seconds"] + until - len(steps) * each),
        step_seconds=each,
        step_tokens=tokens,
        evaluation_seconds=(evaluation["cost/seconds"] - until) / max(1.0, evaluation["eval/rollouts"]),
        save_seconds=ended - evaluated[-1],
        memory=_peak_memory(),
        gpu_memory=_peak_gpu_memory(),
        machine=machine.describe(),
        date=datetime.date.today().isoformat(),
    )


def _pace(steps: list[dict[str, Any]], counter: str) -> float:
    """How much a counter grows a step, once the first is over."""
    return (steps[-1][counter] - steps[0][counter]) / (len(steps) - 1) if len(steps) > 1 else 0.0


def _refuse_missing_gpus(settings: Settings) -> None:
    if settings.resources.gpus:
        import torch

        if torch.cuda.device_count() < settings.resources.gpus:
            raise TrialError(
                f"a trial asks for {settings.resources.gpus:g} GPUs, and this machine has {torch.cuda.device_count()}; "
                "measure on a machine like those it will run on"
            )


def _peak_memory() -> int:
    """Bytes this process held at most."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:  # not Linux, where getrusage would count what the parent held when it forked
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _peak_gpu_memory() -> int | None:
    """Bytes torch reserved at most, over all devices; what other libraries reserve beside it is not seen."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return sum(torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count())) or None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
