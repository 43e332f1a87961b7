"""A study: one run, or several side by side, as reports, plugins and notebooks read it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.contract.metrics import COST
from orchestrator.contract.plan import Phase
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.experiment.overlay import flatten
from orchestrator.runs.curves import Curve
from orchestrator.runs.journal import Look
from orchestrator.runs.read import Run, TrialData, read
from orchestrator.runs.results import FINISHED
from orchestrator.runs.searched import Searched

if TYPE_CHECKING:
    import pandas

# Okabe and Ito's colours, the yellow left out: it vanishes on white. Dark pages get lighter ones from the style sheet.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b0508a", "#3d3d3d", "#b8860b", "#56b4e9", "#8c510a", "#6f42c1", "#c2405f")


@dataclass(frozen=True, kw_only=True, eq=False)
class Study(os.PathLike[str]):
    """All the runs of one report, their arms told apart.

    Tuning trials only chose settings: whoever judges arms reads :attr:`confirmations`.

    :ivar runs: what was read, in the order given
    :ivar trials: of all runs, start phases apart
    :ivar arms: names, in the order of the plans
    :ivar settings: by arm, with the searched values that were confirmed
    :ivar warnings: what could not be read, was changed since, or does not compare
    :ivar experiment: of the first run
    """

    runs: tuple[Run, ...]
    trials: tuple[TrialData, ...]
    arms: tuple[str, ...]
    settings: Mapping[str, Settings]
    warnings: tuple[str, ...] = ()
    experiment: Experiment

    @classmethod
    def read(cls, *directories: str | Path) -> Study:
        """Read run folders and lay them side by side.

        :raises ConfigError: a folder holds no readable plan
        :raises ValueError: without folders
        """
        return merge([read(Path(directory)) for directory in directories])

    @property
    def confirmations(self) -> tuple[TrialData, ...]:
        """Trials that enter the verdict once they are finished."""
        return self.phases[Phase.CONFIRM]

    @property
    def tuning(self) -> tuple[TrialData, ...]:
        """Trials that only chose settings."""
        return self.phases[Phase.TUNE]

    @property
    def starts(self) -> tuple[TrialData, ...]:
        """Start phases that trials share."""
        return self.phases[Phase.START]

    @property
    def phases(self) -> Mapping[Phase, tuple[TrialData, ...]]:
        """Trials by what they are for."""
        every = (*self.trials, *(start for run in self.runs for start in run.starts))
        return {phase: tuple(trial for trial in every if trial.phase is phase) for phase in Phase}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds the verdict rests on, finished or not."""
        if self.looks or self.extended:
            return tuple(sorted({trial.seed for trial in self.confirmations}))
        return tuple(sorted({seed for run in self.runs for seed in run.plan.experiment.all_seeds()}))

    @property
    def planned(self) -> tuple[tuple[str, int], ...]:
        """Arm and seed of every trial that the verdict waits for; of seeds added look by look those of the next look."""
        pairs = ((self._named(run, arm), seed) for run in self.runs for arm in _arms(run) for seed in _seeds(run, arm))
        return tuple(dict.fromkeys(pairs))

    @property
    def ended(self) -> bool:
        """Whether every trial that enters the verdict has ended, one way or another, and the last look was made."""
        if any(run.plan.experiment.sequential and not (run.looks and run.looks[-1].over) for run in self.runs):
            return False
        over = {(t.arm, t.seed) for t in self.confirmations if t.status in (*FINISHED, "failed")}
        return over.issuperset(self.planned)

    @property
    def looks(self) -> tuple[Look, ...]:
        """Looks made so far at a verdict that adds seeds; none of several runs together."""
        return self.runs[0].looks if len(self.runs) == 1 else ()

    @property
    def extended(self) -> frozenset[tuple[str, int]]:
        """Arm and seed of trials added after their design had ended, which decide nothing."""
        return frozenset((self._named(run, arm), seed) for run in self.runs for arm, seed in run.extended)

    @property
    def searched(self) -> tuple[Searched, ...]:
        """What the search of each arm tried and chose; empty where nothing was searched."""
        return tuple(replace(one, arm=self._named(run, one.arm)) for run in self.runs for one in run.searched)

    @property
    def status(self) -> Mapping[str, int]:
        """How many trials are pending, running, done, stopped and failed; only what there is."""
        counts: dict[str, int] = {}
        for trial in self.trials:
            counts[trial.status] = counts.get(trial.status, 0) + 1
        return counts

    @property
    def palette(self) -> Mapping[str, str]:
        """A colour for each arm, the same in every figure."""
        return {arm: PALETTE[index % len(PALETTE)] for index, arm in enumerate(self.arms)}

    def curves(self, metric: str, cost: str | None = COST) -> list[Curve]:
        """The metric of every finished confirmation against what was spent; trials that never measured it are left out.

        :param cost: the counter to lay curves out by; None: steps
        """
        ended = (trial for trial in self.confirmations if trial.status in FINISHED)
        return [curve for trial in ended if (curve := trial.curve(metric, cost)) is not None]

    @property
    def name(self) -> str:
        """The names of its runs' folders."""
        return ", ".join(run.directory.name for run in self.runs)

    def only(self, run: Run) -> Study:
        """The study of one of its runs."""
        return merge([run])

    def frame(self) -> pandas.DataFrame:
        """Every row of metrics of every trial as a data frame, one column a metric.

        Columns beside: ``run, trial, arm, seed, phase, status, step, kind``, and ``searched/PATH`` for searched options.

        :raises ModuleNotFoundError: pandas is not installed
        """
        import pandas

        return pandas.DataFrame(
            {
                **_columns_of(trial),
                "status": trial.status,
                "step": int(row["step"]),
                "kind": row.get("kind"),
                **{f"searched/{path}": value for path, value in trial.spec.searched.items()},
                **row["metrics"],
            }
            for trial in (*self.trials, *self.starts)
            for row in trial.rows
        )

    def rollouts(self) -> pandas.DataFrame:
        """Every rollout whose transcript was kept (``tracking.transcripts``), one row each.

        Columns: ``run, trial, arm, seed, phase, step, task, reference, index, prompt, answer, score, stop, error``, and
        ``reward/NAME`` and ``episode/NAME`` for the parts of the score and the episode's own metrics. ``prompt`` is the last
        message that the policy saw first, ``answer`` what it said, turn below turn; turns of numbers have neither.

        :raises ModuleNotFoundError: pandas is not installed
        :raises ValueError: a damaged row
        """
        import pandas

        return pandas.DataFrame(
            {
                **_columns_of(trial),
                "step": row["step"],
                "task": row["task"],
                "reference": row.get("reference"),
                "index": rollout["index"],
                "prompt": _asked(rollout["turns"]),
                "answer": _said(rollout["turns"]),
                "score": rollout.get("score"),
                "stop": rollout.get("stop"),
                "error": rollout.get("error"),
                **{f"reward/{name}": value for name, value in (rollout.get("parts") or {}).items()},
                **{f"episode/{name}": value for name, value in (rollout.get("metrics") or {}).items()},
            }
            for trial in (*self.trials, *self.starts)
            for row in trial.rollouts()
            for rollout in row["rollouts"]
        )

    def __fspath__(self) -> str:
        """The run's folder, for report sections written when they were given one; goes with the next release.

        :raises TypeError: a study of several runs is no folder
        """
        if len(self.runs) != 1:
            raise TypeError("a study of several runs is no path; read its trials")
        warnings.warn(
            "a report section is given a Study in place of a run's folder; read study.confirmations, study.curves(...), "
            "study.frame() or a trial's rows instead of files",
            DeprecationWarning,
            stacklevel=2,
        )
        return str(self.runs[0].directory)

    def _named(self, run: Run, arm: str) -> str:
        """An arm's name in this study."""
        other = f"{arm} ({run.directory.name})"
        return other if other in self.settings else arm


def merge(runs: Sequence[Run]) -> Study:
    """Lay several runs side by side.

    Arms of one name and equal settings are one arm, with the seeds of both; arms of one name and different settings
    are told apart by the run's name. A seed that ran twice counts once, the first time.

    :raises ValueError: without runs
    """
    if not runs:
        raise ValueError("no run to report on; expected at least one directory")
    settings: dict[str, Settings] = {}
    trials: list[TrialData] = []
    warned = [warning for run in runs for warning in run.warnings]
    taken: set[tuple[str, int]] = set()
    for run in runs:
        names = {}
        for arm, own in _arms(run).items():
            name = arm
            if name in settings and comparable(settings[name]) != comparable(own):
                name = f"{arm} ({run.directory.name})"
            settings.setdefault(name, own)
            names[arm] = name
        for trial in run.trials:
            arm = names[trial.spec.arm]
            key = (arm, trial.seed)
            if trial.phase is Phase.CONFIRM:
                if key in taken:
                    warned.append(f"{arm}, seed {trial.seed}: also in {run.directory.name}; the first run counts")
                    continue
                taken.add(key)
            trials.append(replace(trial, arm=arm))
    if len({json.dumps(_world(own), sort_keys=True) for own in settings.values()}) > 1:
        warned.append(
            "arms were evaluated under different settings or in different environments: see the table of settings"
        )
    return Study(
        runs=tuple(runs),
        trials=tuple(trials),
        arms=tuple(settings),
        settings=settings,
        warnings=tuple(warned),
        experiment=runs[0].plan.experiment,
    )


def differences(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings that are not the same in all arms: dotted path to value by arm; absent means not set."""
    flat = {arm: flatten(config) for arm, config in settings.items()}
    paths = dict.fromkeys(path for values in flat.values() for path in values)
    found = {}
    for path in paths:
        values = {arm: flat[arm].get(path) for arm in flat}
        if len({json.dumps(value, sort_keys=True, default=str) for value in values.values()}) > 1:
            found[path] = values
    return found


def comparable(settings: Settings) -> dict[str, Any]:
    """What makes two arms the same arm: their settings without names, trackers and machines."""
    return settings.model_dump(mode="json", exclude={"name", "tracking", "resources", "report", "checkpoints"})


def _columns_of(trial: TrialData) -> dict[str, Any]:
    """What a row of a data frame says of its trial."""
    return {
        "run": trial.run,
        "trial": trial.id,
        "arm": trial.arm,
        "seed": trial.seed,
        "phase": str(trial.phase),
    }


def _asked(turns: Sequence[Mapping[str, Any]]) -> str | None:
    shown = turns[0].get("observation") if turns else None
    return shown[-1]["content"] if isinstance(shown, list) and shown else None


def _said(turns: Sequence[Mapping[str, Any]]) -> str | None:
    texts = [turn["action"] for turn in turns if isinstance(turn.get("action"), str)]
    return "\n".join(texts) if texts else None


def _arms(run: Run) -> dict[str, Settings]:
    """Resolved settings by arm, with the searched values chosen for confirmation."""
    found = dict(run.plan.arms)
    for trial in run.trials:
        if trial.phase is Phase.CONFIRM:
            found[trial.spec.arm] = trial.settings
        else:
            found.setdefault(trial.spec.arm, trial.settings)
    return found


def _seeds(run: Run, arm: str) -> tuple[int, ...]:
    """What the verdict waits for; of seeds added look by look, those added so far."""
    if run.plan.experiment.sequential is None:
        return run.plan.experiment.seeds_of(arm)
    there = (t for t in run.trials if t.phase is Phase.CONFIRM and t.spec.arm == arm)
    added = [t.seed for t in there if (arm, t.seed) not in run.extended]
    return tuple(sorted(added)) or run.plan.experiment.first_seeds_of(arm)


def _world(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(mode="json", include={"environment", "evaluation"})
