"""Makes the plan that a command asks for, and takes one up again: what changed since, and which code it names."""

from __future__ import annotations

import dataclasses
import os
import stat
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.console import err
from orchestrator.errors import ConfigError, Problem

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.plugging.registry import Registry


def make_plan(file: Path, settings: Sequence[str], *, imports: bool) -> tuple[Plan, Registry]:
    """Make a plan; with ``imports`` say what Python code the experiment names, then import and judge it too."""
    from orchestrator.experiment import planner as plans
    from orchestrator.experiment.files import load_experiment
    from orchestrator.plugging.registry import load_registry

    raw = load_experiment(file, settings)
    registry = load_registry()
    made = plans.make(raw, registry)
    if imports and made.code:
        say_what_is_imported(made)
        made = plans.make(raw, registry, imports=True)
    return made, registry


def say_what_is_imported(plan: Plan) -> None:
    """Print where the code lies that the experiment names, before it is imported, and what a cluster needs of it."""
    from orchestrator.plugging.code import is_file, source_of

    said = [
        f"imports {module if is_file(module) else f'{module} from {source_of(module)}'}, which the experiment names"
        for module in plan.code
    ]
    if plan.code and plan.experiment.resources.address is not None:
        said.append(
            f"every machine of the cluster at {plan.experiment.resources.address} must have the same: files at these "
            "paths, as in a folder that all of them share, and modules installed; a trial that finds other code is refused"
        )
    for line in said:
        err.print(line, highlight=False, markup=False, soft_wrap=True)


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(name, f"was {before.get(name, 'absent')}, is {now.get(name, 'absent')}")
        for name in sorted(now.keys() | before.keys())
        if now.get(name) != before.get(name)
    ]


def still_the_same(plan: Plan, registry: Registry, *, accept_changes: bool) -> Plan:
    """The plan of a run that is resumed, with today's fingerprints where changes are accepted.

    :raises ConfigError: plugins, or code that the experiment names, changed since the run began; or a function that was
        given from Python is not in this process
    """
    from orchestrator.plugging.code import code_now
    from orchestrator.plugging.live import given_functions, live_function

    for _, key in given_functions(plan):
        live_function(key)

    _ask_for_secrets(plan, registry)
    now, code = registry.manager.fingerprint(), code_now(plan.code)
    changes = [*_changes(plan.fingerprint, now), *_changes(plan.code, code)]
    if not changes:
        return plan
    if not accept_changes:
        what = "plugins" if now != dict(plan.fingerprint) else "code that the experiment names"
        changes.append(Problem("", f"{what} changed since the run began; restore it, or go on with --accept-changes"))
        raise ConfigError(changes)
    return dataclasses.replace(plan, fingerprint=now, code=code)


def seeds_to_add(typed: str | None) -> int:
    """How many seeds ``--seeds`` asks for; 0: none.

    :raises ConfigError: it is no number of seeds
    """
    if typed is None:
        return 0
    digits = typed.removeprefix("+")
    if not digits.isdecimal() or not 0 < int(digits) <= 10_000:
        raise ConfigError([Problem("--seeds", f"{typed!r} given; expected how many seeds to add, as in +3")])
    return int(digits)


def add_seeds(plan: Plan, directory: Path, count: int) -> None:
    """Add seeds to a run that has ended, and say what the verdict is worth then."""
    from orchestrator.runners.extend import extend

    added = extend(plan, directory, count)
    seeds = ", ".join(map(str, added.seeds))
    err.print(
        f"adds seeds {seeds} to {', '.join(added.arms)}; the verdict on all seeds together will be exploratory",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def refuse_unrunnable(plan: Plan, local: bool) -> None:
    """Refuse what this machine cannot start, before a directory is made for it.

    :raises ConfigError: with every problem found
    """
    resources = plan.experiment.resources
    problems = []
    if local and plan.experiment.search:
        problems.append(Problem("--local", "a search needs the sweep runner, which confirms the best; drop --local"))
    if local and resources.workers > 1:
        problems.append(Problem("resources.workers", f"{resources.workers} workers need Ray; drop --local"))
    if not local and resources.address is None:
        cores = os.cpu_count() or 1
        if resources.cpus * resources.workers > cores:
            problems.append(
                Problem(
                    "resources.cpus",
                    f"a trial asks for {resources.cpus:g} x {resources.workers} cores, and this machine has {cores}; "
                    "ask for less, or give resources.address of a cluster",
                )
            )
    if resources.gpus and resources.address is None:
        import torch

        if torch.cuda.device_count() < resources.gpus * resources.workers:
            problems.append(
                Problem(
                    "resources.gpus",
                    f"a trial asks for {resources.gpus:g} x {resources.workers} GPUs, and this machine has "
                    f"{torch.cuda.device_count()}; set resources.gpus=0, or give resources.address of a cluster",
                )
            )
    if problems:
        raise ConfigError(problems)


def new_directory(runs: Path, name: str) -> Path:
    """Make the directory of a new run, named by the experiment and the time.

    :raises ConfigError: it cannot be made
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        directory = runs / f"{name}-{stamp}{suffix}"
        try:
            directory.mkdir(parents=True)
            if not directory.parent.stat().st_mode & stat.S_ISGID:  # where it is set, the folder is a team's
                directory.chmod(0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError([Problem("--runs", f"{directory} cannot be made: {error}")]) from error
        return directory
    raise ConfigError([Problem("--runs", f"{runs} already holds a thousand runs of this second")])


def begin(plan: Plan, directory: Path) -> None:
    """Write down what a new run is; where that cannot be written, nothing of the run is left.

    :raises ConfigError: it cannot
    """
    from orchestrator.runs import machine, store
    from orchestrator.runs.atomic import remove

    try:
        store.save_plan(plan, directory)
    except OSError as error:
        remove(directory)
        said = f"a run cannot be begun here: {error.strerror}; make room, or choose another --runs, and run again"
        raise ConfigError([Problem(str(directory), said)]) from error
    machine.record(directory)


def _ask_for_secrets(plan: Plan, registry: Registry) -> None:
    """See that what a run needs and does not keep is there; a terminal is asked for it.

    :raises ConfigError: a variable is missing
    """
    import typer

    from orchestrator.contract.secrets import reveal

    for _ in range(_MOST_SECRETS):
        problems: list[Problem] = []
        tracking = plan.experiment.tracking
        try:
            reveal(tracking.uri if tracking.uri and tracking.enabled else "", "tracking.uri")
        except ConfigError as error:
            problems += error.problems
        for arm, settings in plan.arms.items():
            single = {role: getattr(settings, role) for role in _ROLES}
            specs = [*single.items(), *(("reward", spec) for spec in settings.rewards)]
            for role, spec in specs:
                if spec is not None:
                    found = registry.choose(role, spec.use, spec.options, f"arms.{arm}.{role}")[1]
                    problems += [problem for problem in found if _SECRET in problem.message]
        asked = next(
            (word for problem in problems for word in problem.message.split() if word.startswith(_SECRET)), None
        )
        if not problems:
            return
        if asked is None or not sys.stdin.isatty():
            raise ConfigError(problems)
        os.environ[asked] = typer.prompt(f"{asked} (not kept in the run's files)", hide_input=True, err=True)


_SECRET = "ORCHESTRATOR_SECRET_"
_MOST_SECRETS = 20
_ROLES = ("environment", "policy", "sampler", "advantage", "objective")
