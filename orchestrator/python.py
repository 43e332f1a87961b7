"""The orchestrator from Python and from notebooks: what the command line does, with a study in place of a report printed.

Errors are :class:`ConfigError`, with the messages of the command line.
"""

from __future__ import annotations

import functools
import html
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import ConfigError, OrchestratorError, Problem
from orchestrator.experiment.overlay import merge
from orchestrator.runs import study as studies
from orchestrator.runs.curves import Curve

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.plugging.registry import Registry
    from orchestrator.runs.fence import Fence
    from orchestrator.verdict.outcome import Verdict

__all__ = ["ConfigError", "Study", "load", "plan", "resume", "run"]

_DEEPEST = 40  # of nested data; an experiment has a dozen levels


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Study(studies.Study):
    """A run, or several side by side, with its verdict; shows itself as a table in a notebook.

    :ivar runs: what was read, in the order given
    :ivar trials: of all runs, start phases apart
    :ivar arms: names, in the order of the plans
    :ivar settings: by arm, with the searched values that were confirmed
    :ivar warnings: what could not be read, was changed since, or does not compare
    :ivar experiment: of the first run
    """

    @classmethod
    def read(cls, *directories: str | Path) -> Study:
        """Read run folders and lay them side by side.

        :raises ConfigError: a folder holds no readable plan
        :raises ValueError: without folders
        """
        found = studies.Study.read(*directories)
        return cls(**{field.name: getattr(found, field.name) for field in fields(found)})

    @property
    def directory(self) -> Path:
        """The folder of the first run, with its report."""
        return self.runs[0].directory

    def verdict(self, metric: str | None = None) -> Verdict | None:
        """Which arm is better, by how much, at equal cost; None where nothing can be judged, as :attr:`headline` says.

        :param metric: to judge by; None: the experiment's ``report.metric``
        :raises ConfigError: ``report.baseline`` names no arm
        """
        return self._judged(metric)[0]

    @property
    def headline(self) -> str:
        """The verdict in a sentence, or why there is none."""
        found, why = self._judged(None)
        return found.headline if found is not None else why

    def curves(self, metric: str | None = None, cost: str | None = studies.COST) -> list[Curve]:
        """A metric of every finished confirmation against what was spent; trials that never measured it are left out.

        :param metric: None: the one the verdict rests on
        :param cost: the counter to lay curves out by; None: steps
        """
        if metric is None:
            found = self.verdict()
            metric = found.metric if found is not None else self.experiment.report.metric
        return super().curves(metric, cost) if metric is not None else []

    def _judged(self, metric: str | None) -> tuple[Verdict | None, str]:
        from orchestrator.verdict.study import judge_study

        return judge_study(self, metric)

    def __repr__(self) -> str:
        status = ", ".join(f"{count} {name}" for name, count in self.status.items())
        return f"Study({self.name}: {len(self.arms)} arms, trials: {status}. {self.headline})"

    def _repr_html_(self) -> str:
        """The verdict, and a row for each arm; every text is escaped."""
        from orchestrator.report import tables

        found, why = self._judged(None)
        status = ", ".join(f"{count} {name}" for name, count in self.status.items())
        parts = [f"<p><strong>{html.escape(found.headline if found else why)}</strong></p>"]
        parts += [f"<p>! {html.escape(warning)}</p>" for warning in self.warnings]
        if found is not None:
            header, rows = tables.arms_table(found)
            parts.append(_html_table(header, rows, f"{found.metric} at equal cost"))
            if found.comparisons:
                parts.append(_html_table(*tables.comparisons_table(found), f"against {found.baseline}"))
        parts.append(f"<p>{html.escape(self.name)}: {html.escape(status)}</p>")
        return "\n".join(parts)


def plan(experiment: str | Path | Mapping[str, Any], /, **overrides: Any) -> Plan:
    """Judge an experiment and lay out its trials; nothing is started, and no code that it names is imported.

    :param experiment: path of an experiment file, or its contents as a mapping
    :param overrides: values over it, nested (``schedule={"steps": 10}``) or by dotted key (``**{"schedule.steps": 10}``)
    :raises ConfigError: with every problem found
    """
    return _plan(experiment, overrides, imports=False)[0]


def run(
    experiment: str | Path | Mapping[str, Any],
    /,
    *,
    local: bool = False,
    runs: str | Path = "runs",
    check: bool = True,
    **overrides: Any,
) -> Study:
    """Run an experiment, write its report and return its study; progress is printed as lines of text.

    Trials that failed are said and stay in the study. Ctrl-C lets trials save, says how to go on, and raises.

    :param experiment: path of an experiment file, or its contents as a mapping
    :param local: run trials one after another in this process, without Ray
    :param runs: folder that gets the run's directory
    :param check: hold components that are not ours to their contracts first
    :param overrides: as of :func:`plan`; a function stands for a reward: ``rewards=[my_function]``, for local runs
    :raises ConfigError: with every problem found, before anything is started
    :raises KeyboardInterrupt: the run was asked to end; it can be resumed
    """
    from orchestrator.cli.making import begin, new_directory, refuse_unrunnable
    from orchestrator.runs.fence import driving

    made, registry = _plan(experiment, overrides, imports=True)
    refuse_unrunnable(made, local)
    _refuse_unreachable(made, local)
    _check(made, registry, check)
    directory = new_directory(Path(runs), made.name)
    with driving(directory) as held:
        begin(made, directory)
        return _carry_out(made, directory, registry, held, local)


def resume(
    run: str | Path,
    /,
    *,
    local: bool = False,
    accept_changes: bool = False,
    check: bool = True,
    rewards: Sequence[Callable[..., Any]] = (),
) -> Study:
    """Continue a run where it was cut off: finished trials are left alone, others go on from their last checkpoint.

    :param run: the run's directory
    :param accept_changes: go on although plugins, or code that the experiment names, differ from those it began with
    :param rewards: functions that were given to :func:`run`, where another process did
    :raises ConfigError: there is no run, or something changed since
    :raises KeyboardInterrupt: the run was asked to end; it can be resumed
    """
    from orchestrator.cli.making import refuse_unrunnable, say_what_is_imported, still_the_same
    from orchestrator.plugging.live import name_function
    from orchestrator.plugging.registry import load_registry
    from orchestrator.runs import store
    from orchestrator.runs.fence import driving

    for function in rewards:
        name_function(function)
    directory = Path(run)
    begun, registry = store.load_plan(directory), load_registry()
    made = still_the_same(begun, registry, accept_changes=accept_changes)
    say_what_is_imported(made)
    refuse_unrunnable(made, local)
    _refuse_unreachable(made, local)
    _check(made, registry, check)
    with driving(directory) as held:
        if made != begun:
            store.save_plan(made, directory)
        return _carry_out(made, directory, registry, held, local)


def load(*runs: str | Path) -> Study:
    """Read a run, or several side by side.

    :param runs: directories of runs
    :raises ConfigError: one of them is no run
    """
    if not runs:
        raise ConfigError(
            [Problem("", "no run given; expected the directory of one, as in orchestrator.load('runs/...')")]
        )
    return Study.read(*runs)


def _plan(
    experiment: str | Path | Mapping[str, Any], overrides: Mapping[str, Any], *, imports: bool
) -> tuple[Plan, Registry]:
    from orchestrator.cli.making import say_what_is_imported
    from orchestrator.experiment import planner
    from orchestrator.experiment.files import given_experiment
    from orchestrator.plugging.live import given_functions
    from orchestrator.plugging.registry import load_registry

    problems: list[Problem] = []
    source = experiment
    if isinstance(experiment, Mapping):
        source = _plain(experiment, "", problems)
    elif not isinstance(experiment, str | Path):
        said = f"expected the path of an experiment file, or a mapping; got {type(experiment).__name__}"
        raise ConfigError([Problem("", said)])
    raw = given_experiment(source, _plain(overrides, "", problems), problems)
    registry = load_registry()
    made = planner.make(raw, registry)
    if imports and (made.code or any(True for _ in given_functions(made))):
        say_what_is_imported(made)
        made = planner.make(raw, registry, imports=True)
    return made, registry


def _plain(value: Any, path: str, problems: list[Problem]) -> Any:
    """Data as a file has them; a function among rewards stands for the reward ``function``."""
    if path.count(".") > _DEEPEST:
        problems.append(Problem(path[:80], f"nested deeper than {_DEEPEST} levels"))
        return None
    if isinstance(value, Mapping):
        return _mapping(value, path, problems)
    if isinstance(value, list | tuple | range):
        return [_plain(one, f"{path}.{place}" if path else str(place), problems) for place, one in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of numpy
        return _plain(value.item(), path, problems)
    if callable(value) and "rewards" in path.split("."):
        return {"use": "function", "live": _named(value, path, problems)}
    near = "; functions stand among rewards alone" if callable(value) else ""
    problems.append(Problem(path, f"a {type(value).__name__} is no value of an experiment; expected plain data{near}"))
    return None


def _mapping(value: Mapping[Any, Any], path: str, problems: list[Problem]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, one in value.items():
        if not isinstance(key, str):
            problems.append(Problem(path, f"the key {key!r} is a {type(key).__name__}; keys are texts"))
            continue
        where = f"{path}.{key}" if path else key
        if key == "use" and callable(one) and "rewards" in where.split("."):
            made = merge(made, {"use": "function", "live": _named(one, where, problems)})
        else:
            made[key] = _plain(one, where, problems)
    return made


def _named(function: Any, path: str, problems: list[Problem]) -> str:
    from orchestrator.plugging.live import name_function

    if isinstance(function, type):
        problems.append(Problem(path, f"{function.__name__} is a class; expected a function, or an object to call"))
    return name_function(function)


def _refuse_unreachable(made: Plan, local: bool) -> None:
    """Refuse a function of this process where trials are played by others."""
    from orchestrator.cli.carrying import needs_ray
    from orchestrator.plugging.live import given_functions

    problems = []
    for path, key in dict.fromkeys(given_functions(made)):
        name = key.partition("@")[0]
        keep = f"put it into a file, {{use: function, path: FILE.py:{name}}}"
        if needs_ray(made, local):
            instead = "" if made.experiment.search else ", or run with local=True"
            problems.append(
                Problem(
                    path, f"the function {name} is in this process, and Ray plays trials in others; {keep}{instead}"
                )
            )
        elif any(_limited(settings) for settings in made.arms.values()):
            said = "the file's limits on seconds are kept from outside the process that plays"
            problems.append(
                Problem(path, f"the function {name} is in this process, and {said}; {keep}, or drop the limits")
            )
    if problems:
        raise ConfigError(problems)


def _limited(settings: Any) -> bool:
    failures = settings.failures
    return bool(failures.step_seconds or failures.reward_seconds or settings.budget.seconds is not None)


def _check(made: Plan, registry: Registry, check: bool) -> None:
    if check:
        from orchestrator.cli import strangers

        strangers.refuse_broken(made, registry, _say)


def _carry_out(made: Plan, directory: Path, registry: Registry, held: Fence, local: bool) -> Study:
    from rich.console import Console

    from orchestrator.cli.carrying import carry_out
    from orchestrator.cli.console import TrialTable
    from orchestrator.plugging.live import given_functions
    from orchestrator.report.write import write_report

    _say(f"run directory: {directory}")
    lines = Console(file=sys.stdout, force_terminal=False, force_jupyter=False, no_color=True)
    carry_out(
        made,
        directory,
        registry,
        held,
        TrialTable(made, lines),
        _say,
        local=local,
        around=functools.partial(_resumable, directory),
        report=functools.partial(write_report, [directory], registry=registry),
        resume=f"orchestrator.resume({str(directory)!r})",
        here=any(True for _ in given_functions(made)),
    )
    found = Study.read(directory)
    _say(found.headline)
    return found


@contextmanager
def _resumable(directory: Path) -> Iterator[None]:
    """Say how to go on with a run that was ended before its time."""
    try:
        yield
    except (KeyboardInterrupt, OrchestratorError, OSError) as error:
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else "the run stopped"
        with suppress(OSError):
            _say(f"{said}; continue with: orchestrator.resume({str(directory)!r})")
        raise


def _say(said: str, style: str | None = None) -> None:
    print(said, flush=True)


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
