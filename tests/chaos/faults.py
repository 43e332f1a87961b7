"""What can befall a run: processes killed or stopped, signals, a full disk, files damaged while nobody looks."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.runs.layout import RunFolder

Fault = Callable[[psutil.Process, Path, random.Random], str]


def _family(command: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return [command, *command.children(recursive=True)]
    return []


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.name()} {' '.join(process.cmdline())}"
    return ""


def _find(command: psutil.Process, who: str) -> psutil.Process | None:
    """The command itself, or a descendant by a word of its command line."""
    if who == "command":
        return command
    return next((process for process in _family(command)[1:] if who in _words(process)), None)


_WHO = {
    "driver": "orchestrator.runners.child",
    "worker": "ray::TrialWorker",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
}


def _killing(who: str) -> Fault:
    def fault(command: psutil.Process, run: Path, chance: random.Random) -> str:
        found = _find(command, _WHO.get(who, who))
        if found is None:
            return f"no {who} to kill"
        with suppress(psutil.Error):
            found.send_signal(signal.SIGKILL)
        return f"killed the {who}"

    return fault


def _stopping(who: str) -> Fault:
    def fault(command: psutil.Process, run: Path, chance: random.Random) -> str:
        found, seconds = _find(command, _WHO.get(who, who)), chance.uniform(1, 8)
        if found is None:
            return f"no {who} to stop"
        with suppress(psutil.Error):
            found.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            found.send_signal(signal.SIGCONT)
        return f"stopped the {who} for {seconds:.1f} s"

    return fault


def _signalling(number: signal.Signals) -> Fault:
    def fault(command: psutil.Process, run: Path, chance: random.Random) -> str:
        with suppress(psutil.Error):
            command.send_signal(number)
        return f"sent {number.name}"

    return fault


def _filling(command: psutil.Process, run: Path, chance: random.Random) -> str:
    """Let no file of our processes grow for some seconds: each write beyond its present end fails."""
    seconds = chance.uniform(0.5, 3)
    ours = [
        p for p in _family(command) if p == command or any(w in _words(p) for w in (_WHO["driver"], _WHO["worker"]))
    ]
    limits = {}
    for process in ours:
        with suppress(ProcessLookupError, psutil.Error):
            limits[process.pid] = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (512, limits[process.pid][1]))
    time.sleep(seconds)
    for pid, limit in limits.items():
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)
    return f"no room on the disk for {seconds:.1f} s"


def _damaging(which: str) -> Fault:
    """Kill everything of ours, and damage what a crash can damage: ends of files, the newest checkpoint."""

    def fault(command: psutil.Process, run: Path, chance: random.Random) -> str:
        for process in _family(command):
            with suppress(psutil.Error):
                process.kill()
        folder = RunFolder(run)
        if which == "journal":
            _append(folder.journal, b'{"kind":"report","tri')
            return "killed all, tore the journal's last line"
        trials = [trial for trial in folder.trials() if not trial.result.exists()]
        if not trials:
            return "killed all; no open trial to damage"
        trial = chance.choice(trials)
        if which == "metrics":
            _append(trial.metrics, b'{"step": 7, "kind": "st')
            return f"killed all, tore the last row of {trial.path.name}"
        saved = sorted(trial.checkpoints.glob("step-*/*"))
        if not saved:
            return "killed all; no checkpoint to damage"
        victim = chance.choice([path for path in saved if path.parent == saved[-1].parent])
        content = bytearray(victim.read_bytes())
        if content and chance.random() < 0.5:
            content[chance.randrange(len(content))] ^= 0xFF
        else:
            del content[len(content) // 2 :]
        victim.write_bytes(content)
        return f"killed all, damaged {victim.relative_to(run)}"

    return fault


def _append(path: Path, torn: bytes) -> None:
    if path.exists():
        with path.open("ab") as file:
            file.write(torn)


FAULTS: dict[str, Fault] = {
    **{f"kill-{who}": _killing(who) for who in ("command", *_WHO)},
    **{f"stop-{who}": _stopping(who) for who in ("command", *_WHO)},
    **{name.lower(): _signalling(getattr(signal, name)) for name in ("SIGTERM", "SIGINT", "SIGHUP")},
    "full-disk": _filling,
    **{f"damage-{which}": _damaging(which) for which in ("journal", "metrics", "checkpoint")},
}
