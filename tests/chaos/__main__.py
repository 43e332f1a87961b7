"""Injects faults at random into small sweeps of every kind, resumes them until they are done, and compares them with unbroken runs.

    python -m tests.chaos                                   # eight faults: minutes
    python -m tests.chaos --faults 100 --seed 7             # hours; called again, it continues where it stopped
    python -m tests.chaos --only 7:31                       # one fault of that session again

Equal means: the same trials with the same ends, the same rows of metrics (but for what a clock wrote), none twice, and the
same verdict. Every fault follows from its seed and number; the moment it strikes also from the machine's pace.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "integration"))

import ladder  # noqa: E402

from orchestrator.runs import journal  # noqa: E402
from orchestrator.runs.layout import RunFolder  # noqa: E402
from orchestrator.runs.results import read_result  # noqa: E402
from tests.chaos.faults import FAULTS  # noqa: E402
from tests.chaos.sweeps import kinds  # noqa: E402

_LIMIT = 300.0  # seconds a run may take, fault included; more is a hang
_RESUMES = 4  # a run that is not done after so many is an outcome of its own


class Session:
    """Faults in a folder that remembers which were tried."""

    def __init__(self, folder: Path, seed: int):
        self._folder, self._seed = folder.resolve(), seed
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = self._folder / "outcomes.jsonl"
        self._environment = _environment(self._folder)

    def tried(self) -> dict[int, dict[str, Any]]:
        """Outcomes by number, of this seed."""
        if not self._log.exists():
            return {}
        rows = [json.loads(line) for line in self._log.read_text().splitlines()]
        return {row["number"]: row for row in rows if row["seed"] == self._seed}

    def strike(self, number: int) -> dict[str, Any]:
        """Try one fault; returns and remembers its outcome."""
        chance = random.Random(f"{self._seed}:{number}")
        kind, name = chance.choice(sorted(kinds())), chance.choice(sorted(FAULTS))
        unbroken = self._unbroken(kind)
        runs = self._folder / f"{self._seed}-{number}"
        shutil.rmtree(runs, ignore_errors=True)
        began = time.monotonic()
        command = self._start(kind, runs)
        run = ladder.run_directory(runs, command, timeout=120)
        _wait_for_rows(command, run, chance.random() * _rows(unbroken))
        time.sleep(chance.uniform(0, 0.3))
        said = FAULTS[name](psutil.Process(command.pid), run, chance) if command.poll() is None else "was over already"
        said, codes = f"{name}: {said}", [_finish(command, self._limit(began))]
        while codes[-1] not in (0, "hung") and len(codes) <= _RESUMES:
            _follow_advice(run)
            codes.append(_finish(self._resume(run), self._limit(time.monotonic())))
        differences = _differences(unbroken, run) if codes[-1] == 0 else [f"not done, exit codes {codes}"]
        outcome = {
            "seed": self._seed,
            "number": number,
            "kind": kind,
            "fault": said,
            "codes": codes,
            "seconds": round(time.monotonic() - began, 1),
            "differences": differences,
        }
        with self._log.open("a") as log:
            log.write(json.dumps(outcome) + "\n")
        if not differences:
            shutil.rmtree(runs)
        return outcome

    def _limit(self, began: float) -> float:
        return max(1.0, _LIMIT - (time.monotonic() - began))

    def _unbroken(self, kind: str) -> Path:
        runs = self._folder / "unbroken" / kind
        done = [path.parent for path in runs.glob("*/report.json")]
        if not done:
            shutil.rmtree(runs, ignore_errors=True)
            command = self._start(kind, runs)
            code = _finish(command, _LIMIT)
            assert code == 0, f"the unbroken run of {kind} ended with {code}: {_said(runs)}"
            done = [path.parent for path in runs.glob("*/report.json")]
        return done[0]

    def _start(self, kind: str, runs: Path) -> subprocess.Popen[str]:
        runs.mkdir(parents=True)
        file = runs / f"{kind}.yaml"
        file.write_text(json.dumps(kinds()[kind]))
        return self._command(runs, "run", str(file), "--runs", str(runs))

    def _resume(self, run: Path) -> subprocess.Popen[str]:
        return self._command(run.parent, "resume", str(run))

    def _command(self, runs: Path, *arguments: str) -> subprocess.Popen[str]:
        with (runs / "said.txt").open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-c", "from orchestrator.cli.main import main; main()", *arguments],
                env=self._environment,
                stdout=said,
                stderr=said,
                text=True,
                start_new_session=True,
            )


def _environment(folder: Path) -> dict[str, str]:
    """Where commands find the plugins of the sweeps, installed anew."""
    plugins = folder / "plugins"
    shutil.rmtree(plugins, ignore_errors=True)
    environment = ladder.install(plugins)
    (plugins / "chaos_sampler.py").write_text((HERE / "chaos_sampler.py").read_text())
    info = plugins / "chaos_sampler-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-sampler\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nchaos = chaos_sampler\n")
    return {**environment, "MLFLOW_DISABLE_TELEMETRY": "true"}


def _follow_advice(run: Path) -> None:
    """Do what a run asks a person to do before it is resumed: give up checkpoints of which none is whole."""
    for trial in RunFolder(run).trials():
        result = read_result(trial)
        if result and result.error and f"in {trial.checkpoints} can be read; remove the folder" in result.error.message:
            shutil.rmtree(trial.checkpoints)


def _finish(command: subprocess.Popen[str], seconds: float) -> int | str:
    try:
        return command.wait(seconds)
    except subprocess.TimeoutExpired:
        for process in psutil.Process(command.pid).children(recursive=True):
            process.kill()
        command.kill()
        command.wait()
        return "hung"


def _rows(run: Path) -> int:
    """Rows of metrics a run holds by now, start phases included."""
    folder = RunFolder(run)
    files = [trial.metrics for trial in (*folder.trials(), *folder.starts())]
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


def _wait_for_rows(command: subprocess.Popen[str], run: Path, rows: float) -> None:
    deadline = time.monotonic() + _LIMIT / 2
    while command.poll() is None and _rows(run) < rows and time.monotonic() < deadline:
        time.sleep(0.02)


def _said(runs: Path) -> str:
    said = runs / "said.txt"
    return said.read_text()[-2000:] if said.exists() else ""


def _differences(unbroken: Path, run: Path) -> list[str]:
    """What of a run is not as in the unbroken one."""
    expected, found = set(journal_or_plan(unbroken)), set(journal_or_plan(run))
    differences = [f"trials {sorted(expected ^ found)}"] if expected != found else []
    for trial in sorted(expected & found):
        there, here = RunFolder(unbroken).trial(trial), RunFolder(run).trial(trial)
        ends = [(result.status, result.step) if result else None for result in map(read_result, (there, here))]
        if ends[0] != ends[1]:
            differences.append(f"{trial} ended {ends[1]}, not {ends[0]}")
        rows, others = ladder.steps_of(there.path), ladder.steps_of(here.path)
        twice = [key for key, count in Counter((kind, step) for kind, step, _ in others).items() if count > 1]
        if twice:
            differences.append(f"{trial} has rows twice: {twice[:5]}")
        elif rows != others:
            place = next((i for i, (a, b) in enumerate(zip(rows, others, strict=False)) if a != b), "the end")
            differences.append(f"{trial} has {len(others)} rows of {len(rows)}, the first that differs is {place}")
    said = [json.loads((path / "report.json").read_text())["verdict"] for path in (unbroken, run)]
    if said[0] != said[1]:
        differences.append(f"another verdict: {said[1]['headline']!r}, not {said[0]['headline']!r}")
    return differences


def journal_or_plan(run: Path) -> list[str]:
    """A run's trials; one that was played without Ray has no journal."""
    return list(journal.read(run).trials) or [trial.path.name for trial in RunFolder(run).trials()]


def main() -> None:
    """Try what is asked for; exit with 1 where a run did not come out as the unbroken one."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--faults", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    arguments.add_argument("--only", metavar="SEED:NUMBER", help="try one fault again")
    arguments.add_argument("--folder", type=Path, default=Path("build/chaos"))
    chosen = arguments.parse_args()
    seed, numbers = chosen.seed, range(chosen.faults)
    if chosen.only:
        seed, number = map(int, chosen.only.split(":"))
        numbers = range(number, number + 1)
    session = Session(chosen.folder, seed)
    tried = {} if chosen.only else session.tried()
    outcomes = []
    print(f"seed {seed}, {len(numbers)} faults, {len(tried)} of them tried before", flush=True)
    for number in numbers:
        outcome = tried.get(number) or session.strike(number)
        outcomes.append(outcome)
        end = "; ".join(outcome["differences"]) or "equal"
        print(f"{seed}:{number} {outcome['kind']}, {outcome['fault']}, {outcome['codes']}: {end}", flush=True)
    bad = [outcome for outcome in outcomes if outcome["differences"]]
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} runs came out as the unbroken ones")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
