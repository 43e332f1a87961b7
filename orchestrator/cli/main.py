"""The command line: ``orchestrator run | plan | resume | report | plugins | schema | doctor``.

Exit codes: 0 done, 1 a trial failed or Ray was lost, 2 the request was wrong, 128 + n ended by signal n (130 interrupted).
What is heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import json
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator import __version__
from orchestrator.cli.console import TrialTable, err, is_terminal, out, table
from orchestrator.cli.guard import ENDED_BY, FAILED, guarded, show_tracebacks
from orchestrator.cli.making import (
    add_seeds,
    begin,
    make_plan,
    new_directory,
    refuse_unrunnable,
    say_what_is_imported,
    seeds_to_add,
    still_the_same,
)
from orchestrator.cli.plugins import plugins
from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.plugging.registry import Registry
    from orchestrator.runs.fence import Fence


class _Group(TyperGroup):
    """The built-in commands, and those that plugins provide."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *sorted(_plugin_commands(tuple(self.commands)))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name) or _plugin_commands(tuple(self.commands)).get(cmd_name)
        return found or _plugin_commands(tuple(self.commands), every_plugin=True).get(cmd_name)


_EXIT_CODES = (
    "Exit codes: 0 done; 1 a trial failed, or Ray was lost; 2 the request was wrong, and nothing was started; "
    "128 + n ended by signal n (130: interrupted)."
)

app = typer.Typer(
    cls=_Group,
    name="orchestrator",
    help="Train several methods alike, compare them at equal cost, and say which is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help pages take longer to import than to read
)

app.add_typer(plugins, name="plugins")

File = Annotated[Path, typer.Argument(metavar="FILE", help="an experiment file", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="settings over the file, as in schedule.steps=10", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON for machines")]
Local = Annotated[bool, typer.Option("--local", help="run trials one after another in this process, without Ray")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="leave out the check of components that are not ours")]


def main() -> None:
    """Entry point of the ``orchestrator`` command."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]  # wherever it stands
    debug = len(arguments) < len(sys.argv) - 1
    if debug:
        show_tracebacks()
    logging.basicConfig(
        level=logging.INFO if debug else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    app(args=arguments, prog_name="orchestrator")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"orchestrator {__version__}")
        raise typer.Exit


@app.callback(epilog=_EXIT_CODES)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and end")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and the story of the run")] = False,
) -> None:
    """Train several methods alike, compare them at equal cost, and say which is better."""


@app.command()
@guarded
def run(
    file: File,
    settings: Settings = None,
    local: Local = False,
    runs: Annotated[Path, typer.Option(help="folder that gets the run's directory")] = Path("runs"),
    no_check: NoCheck = False,
    as_json: Json = False,
) -> None:
    """Run an experiment, and say which arm is better."""
    from orchestrator.runs.fence import driving

    plan, registry = make_plan(file, settings or [], imports=True)
    refuse_unrunnable(plan, local)
    _refuse_broken(plan, registry, no_check)
    directory = new_directory(runs, plan.name)
    with driving(directory) as held:
        begin(plan, directory)
        _carry_out(plan, directory, registry, held, local=local, as_json=as_json)


@app.command()
@guarded
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run's directory")],
    local: Local = False,
    accept_changes: Annotated[
        bool, typer.Option("--accept-changes", help="go on although plugins differ from those the run began with")
    ] = False,
    no_check: NoCheck = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="+N", help="add N seeds to every arm of a run that has ended; the verdict is exploratory then"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Continue a run where it was cut off.

    Finished trials are left alone; the others go on from their last checkpoint.
    """
    from orchestrator.plugging.registry import load_registry
    from orchestrator.runs import store
    from orchestrator.runs.fence import driving

    begun, registry = store.load_plan(run), load_registry()
    more = seeds_to_add(seeds)
    plan = still_the_same(begun, registry, accept_changes=accept_changes)
    say_what_is_imported(plan)
    refuse_unrunnable(plan, local)
    _refuse_broken(plan, registry, no_check)
    with driving(run) as held:
        if plan != begun:
            store.save_plan(plan, run)
        if more:
            add_seeds(plan, run, more)
        _carry_out(plan, run, registry, held, local=local, as_json=as_json)


@app.command()
@guarded
def plan(
    file: File,
    settings: Settings = None,
    like: Annotated[
        Path | None, typer.Option(metavar="RUN", help="an earlier run: its seeds' scatter, its tokens and time")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="run three steps and a small evaluation of each arm now, and remember the cost"),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what an experiment would run, what it could find and what it will take; launch nothing but what --measure asks.

    Every option of every arm with its value, the trials, the size of one trial, the smallest difference that the design
    finds in four of five cases, what would find a smaller one, and the time and memory of trials measured before.
    """
    from orchestrator.cli.expense import measured
    from orchestrator.cli.preview import show_plan
    from orchestrator.runs.study import Study

    made, registry = make_plan(file, settings or [], imports=measure)
    study = Study.read(like) if like is not None else None
    known, failed = measured(made, registry, anew=measure) if measure or not as_json else ({}, False)
    if as_json:
        print(made.to_json())
    else:
        show_plan(made, registry, out, study, known)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
@guarded
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="directories of runs")],
    metric: Annotated[str | None, typer.Option(help="metric to judge by, in a report beside; none: the run's")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's report and print the verdict.

    Several runs are laid side by side.
    """
    from orchestrator.plugging.registry import load_registry

    _report(runs, load_registry(), metric=metric, as_json=as_json)


@app.command()
@guarded
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="file to write; none: print it")] = None,
) -> None:
    """Write the JSON Schema of experiment files.

    For editors that complete and check YAML; it covers the installed plugins' options.
    """
    from orchestrator.experiment.schema import experiment_schema
    from orchestrator.plugging.registry import load_registry

    text = json.dumps(experiment_schema(load_registry()), indent=1)
    if output is None:
        print(text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    err.print(
        f"wrote {output}; in a YAML file, name it with: # yaml-language-server: $schema={output}", highlight=False
    )


@app.command()
@guarded
def doctor(
    as_json: Json = False,
    tracking: Annotated[str | None, typer.Option(help="tracking server to try; none: MLFLOW_TRACKING_URI")] = None,
) -> None:
    """Look at versions, devices, tracking and plugins."""
    from orchestrator.cli.doctor import examine

    findings = examine(tracking)
    if as_json:
        print(json.dumps([finding.as_json() for finding in findings], indent=1))
    else:
        made = table("", "what", "found")
        for finding in findings:
            made.add_row("[green]✓[/green]" if finding.fine else "[red]✗[/red]", finding.what, finding.found)
        out.print(made)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(FAILED)


def _refuse_broken(plan: Plan, registry: Registry, no_check: bool) -> None:
    from orchestrator.cli import strangers

    if not no_check:
        strangers.refuse_broken(plan, registry, _say)


def _carry_out(plan: Plan, directory: Path, registry: Registry, held: Fence, *, local: bool, as_json: bool) -> None:
    """Run the plan's open trials, write the report, tell the user; exit 1 when a trial failed."""
    from orchestrator.cli.carrying import carry_out

    _say(f"run directory: {directory}")
    watcher = TrialTable(plan, err if as_json or not is_terminal() else out)
    results = carry_out(
        plan,
        directory,
        registry,
        held,
        watcher,
        _say,
        local=local,
        around=functools.partial(_resumable, directory),
        report=functools.partial(_report, [directory], registry, as_json=as_json),
        resume=f"orchestrator resume {directory}",
    )
    if any(result.status == "failed" for result in results):
        raise typer.Exit(FAILED)


def _say(said: str, style: str | None = None) -> None:
    err.print(said, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _resumable(directory: Path) -> Iterator[None]:
    """Say how to go on with a run that was ended before its time."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "signal", signal.SIGINT)
        said = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
        with suppress(OSError):  # the terminal may be gone
            err.print(f"\n{said}; continue with: orchestrator resume {directory}", highlight=False, soft_wrap=True)
        raise typer.Exit(ENDED_BY + number) from None
    except (OrchestratorError, OSError):
        err.print(f"the run stopped; continue with: orchestrator resume {directory}", highlight=False, soft_wrap=True)
        raise


def _report(runs: Sequence[Path], registry: Registry, *, as_json: bool, metric: str | None = None) -> None:
    from orchestrator.report.terminal import render_terminal
    from orchestrator.report.write import to_json, write_report

    written = write_report(runs, registry=registry, metric=metric)
    if as_json:
        print(json.dumps(to_json(written), indent=1, ensure_ascii=False))
    else:
        out.print(render_terminal(written))


@functools.cache
def _plugin_commands(ours: tuple[str, ...], every_plugin: bool = False) -> dict[str, Any]:
    """Commands that plugins provide, by name; why one cannot be typed is left to ``plugins check`` to explain.

    :param ours: names of the built-in commands
    :param every_plugin: import all plugins, not just those whose source mentions the hook
    """
    from orchestrator.cli.commands import plugin_commands
    from orchestrator.plugging.manager import PluginManager

    manager = PluginManager()
    manager.discover(None if every_plugin else manager.mentioning("provide_commands"), strict=False)
    return {one.name: one.built for one in plugin_commands(manager, ours) if not one.hidden}
