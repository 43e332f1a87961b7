"""Checks of plugins in a process of their own, which is ended where a call of theirs never returns."""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError, Problem, describe

Found = tuple[str, str | None]

SECONDS = 120.0  # that one component may take
_GRACE = 2.0  # before the process is ended, for the check to say so itself
_START = 300.0  # for the process to import what is installed
_SLOW = "is not done after {seconds:g} s, and no call of a component may last for ever"


def examine(request: Mapping[str, Any], *, seconds: float = SECONDS) -> Iterator[Found]:
    """Check what is asked for; what was looked at, each with the problem found there, if any.

    :param request: ``{"installed": NAME or None}``, ``{"project": FOLDER}`` or ``{"chosen": [...]}``, as :mod:`strangers`
        makes them
    :param seconds: that one component may take; one that takes longer is named, and the others are checked all the same
    """
    done: list[str] = []
    while True:
        stuck = yield from _one_process({**request, "skip": done, "seconds": seconds}, done, seconds)
        if stuck is None:
            return
        done.append(stuck)


def _one_process(request: Mapping[str, Any], done: list[str], seconds: float) -> Generator[Found, None, str | None]:
    """Check in one process; returns what it was ended in, or None where it came to its end."""
    reader, writer = os.pipe()
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    with tempfile.TemporaryFile() as said, tempfile.NamedTemporaryFile("w+") as where:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(writer), where.name],
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            pass_fds=[writer],
            start_new_session=True,
        )
        os.close(writer)
        try:
            assert process.stdin is not None
            with process.stdin as stdin, suppress(BrokenPipeError):
                stdin.write(json.dumps(request).encode())
            begun: str | None = None
            patience = _START
            for event in _events(reader, lambda: patience):  # noqa: B023  as it is when it is asked
                patience = seconds + _GRACE if "begin" in event else _START
                if "begin" in event:
                    begun = event["begin"]
                elif "refused" in event:
                    raise ConfigError([Problem(*one) for one in event["refused"]])
                else:
                    if begun is not None:
                        done.append(begun)
                    begun = None
                    yield event["line"], event["problem"]
            ended = process.poll()
            if begun is None and ended in (0, None):
                return None
            if begun is None:
                said.seek(0)
                last = "\n".join(said.read().decode(errors="replace").splitlines()[-5:])
                yield "what plugins provide", f"the checking process ended with exit code {ended}\n{last}".strip()
                return None
            if ended is None:
                yield begun, f"{_SLOW.format(seconds=seconds)}: it was in {_place(Path(where.name))}"
            else:
                yield begun, f"it ended the process that checked it, with exit code {ended}"
            return begun
        finally:
            os.close(reader)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _events(reader: int, patience: Callable[[], float]) -> Iterator[dict[str, Any]]:
    """What the process tells, until it ends or is silent for too long."""
    waiting = b""
    until = time.monotonic() + patience()
    while True:
        ready, _, _ = select.select([reader], [], [], max(0.0, until - time.monotonic()))
        data = os.read(reader, 65536) if ready else b""
        if not data:
            return
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
        until = time.monotonic() + patience()


def _place(file: Path) -> str:
    """Where a process hangs, as faulthandler wrote it down: the innermost frame comes first."""
    frames = [line.strip() for line in file.read_text(errors="replace").splitlines() if line.startswith("  File")]
    return frames[0].removeprefix("File ") if frames else "a place it did not tell"


def main(writer: int, where: str) -> None:
    """The checking process."""
    request = json.loads(sys.stdin.read())
    trace = open(where, "w")  # noqa: SIM115  kept open for faulthandler

    def tell(**event: Any) -> None:
        os.write(writer, json.dumps(event).encode() + b"\n")

    def begin(line: str) -> bool:
        if line in request["skip"]:
            return False
        tell(begin=line)
        faulthandler.dump_traceback_later(request["seconds"] + _GRACE / 2, file=trace)
        return True

    try:
        for line, problem in _checked(request, begin):
            faulthandler.cancel_dump_traceback_later()
            if line not in request["skip"]:
                tell(line=line, problem=problem)
    except ConfigError as error:
        tell(refused=[(problem.path, problem.message) for problem in error.problems])
    except Exception as error:  # whatever it is, whoever asked is told
        tell(refused=[("", describe(error))])


def _checked(request: Mapping[str, Any], begin: Callable[[str], bool]) -> Iterator[Found]:
    from orchestrator.plugging.check import check_installed, check_project
    from orchestrator.testing import check_component

    def examine_one(component: Any, **options: Any) -> None:
        check_component(component, seconds=request["seconds"], **options)

    if "project" in request:
        return check_project(Path(request["project"]), examine_one, begin)
    if "installed" in request:
        return check_installed(request["installed"], examine_one, begin)
    from orchestrator.cli.in_experiment import check_chosen

    return check_chosen(request["chosen"], examine_one, begin)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
