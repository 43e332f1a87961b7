"""What a terminal shows: problems, plans, plugins, and a sweep as it runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.contract.metrics import COMPARED, COST
from orchestrator.errors import describe

if TYPE_CHECKING:
    from orchestrator.contract.plan import Plan
    from orchestrator.contract.settings import Settings
    from orchestrator.errors import Problem

out = Console(soft_wrap=False)
err = Console(stderr=True)

_LARGEST_TABLE = 24
_SECONDS_BETWEEN_LINES = 10.0
_COLOURS = {"running": "cyan", "done": "green", "stopped": "yellow", "failed": "red", "pending": "dim"}


def show_problems(problems: Iterable[Problem]) -> None:
    """Print a list of problems, one line each, to standard error."""
    problems = list(problems)
    for problem in problems:
        where = f"[bold]{escape(problem.path)}[/bold]: " if problem.path else ""
        err.print(f"[red]✗[/red] {where}{escape(problem.message)}", highlight=False, soft_wrap=True)
    if len(problems) > 1:
        err.print(f"{len(problems)} problems; nothing was started", style="dim")


def show_error(error: BaseException) -> None:
    """Print one error, with the plugin at fault, to standard error."""
    for line in describe(error).splitlines():
        indented = line.startswith(" ")
        err.print(f"[red]{' ' if indented else '✗'}[/red] {escape(line)}", highlight=False, soft_wrap=True)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the house style."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def duration(seconds: float | None) -> str:
    """Seconds in words of at most two units; empty for None."""
    if seconds is None:
        return ""
    seconds = round(seconds)
    for size, unit, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size}{unit} {seconds % size // small}{below}"
    return f"{seconds}s"


@dataclass(slots=True, kw_only=True)
class _Row:
    steps: int | None
    budget: int | None
    status: str = "pending"
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    said: float = 0.0  # when the last plain line was printed

    def share(self) -> float:
        """How much of the trial is over: by steps or by budget, whichever ends it first."""
        shares = [0.0]
        if self.steps:
            shares.append(self.step / self.steps)
        if self.budget:
            shares.append(self.metrics.get(COST, 0.0) / self.budget)
        return min(1.0, max(shares))

    def reward(self) -> str:
        """The newest score: held-out where measured, else of the training rollouts."""
        for name in (*COMPARED, "rollout/reward/mean"):
            if name in self.metrics:
                return f"{self.metrics[name]:.3f}"
        return ""

    def speed(self) -> str:
        """Generated tokens per second since the trial began."""
        seconds = self.metrics.get("cost/seconds", 0.0)
        return f"{self.metrics.get(COST, 0.0) / seconds:,.0f}" if seconds > 0 else ""

    def left(self) -> float | None:
        """Seconds until the end at the present pace; None when not running or too early to say."""
        share, seconds = self.share(), self.metrics.get("cost/seconds", 0.0)
        return seconds * (1 - share) / share if self.status == "running" and share > 0 and seconds > 0 else None

    def cells(self) -> tuple[str, ...]:
        total = f"/{self.steps}" if self.steps else ""
        return (f"{self.step}{total}", self.reward(), self.speed(), duration(self.left()))


class TrialTable:
    """Watches a sweep: a live table on a terminal, plain lines elsewhere. Implements ``runners.progress.Progress``."""

    def __init__(self, plan: Plan, console: Console):
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._example = next(iter(plan.arms.values()), None)
        for trial in plan.trials:
            self._rows[trial.id] = self._row(trial.settings)
        self._began = time.monotonic()
        self._live: Live | None = None
        self._looked = ""  # what the last look at the verdict decided

    @contextmanager
    def shown(self) -> Iterator[TrialTable]:
        """Keep the live table on the screen while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=2) as live:
            self._live = live
            try:
                yield self
            finally:
                self._live = None

    def trial_update(self, trial: str, status: str, step: int, metrics: Mapping[str, float]) -> None:
        """Hear that a trial moved on."""
        row = self._rows.get(trial)
        if row is None:
            from orchestrator.experiment.planner import start_settings

            shared = trial.startswith("start-")  # a warm-up, run once for all who begin with it
            settings = start_settings(self._example) if shared and self._example is not None else self._example
            row = self._rows[trial] = self._row(settings)
        changed = row.status != status
        row.status, row.step = status, max(step, row.step)
        row.metrics.update(metrics)
        now = time.monotonic()
        moving = status == "running" and now - row.said >= _SECONDS_BETWEEN_LINES
        if self._live is None and (changed or moving):
            row.said = now
            self._console.print(self._line(trial, row), highlight=False, soft_wrap=True, markup=False)

    def looked(self, said: str) -> None:
        """Hear what a look at the verdict decided."""
        self._looked = said
        if self._live is None:
            self._console.print(said, highlight=False, soft_wrap=True, markup=False)

    def _row(self, settings: Settings | None) -> _Row:
        if settings is None:
            return _Row(steps=None, budget=None)
        return _Row(steps=settings.schedule.steps, budget=settings.budget.generated_tokens)

    def _line(self, trial: str, row: _Row) -> str:
        step, reward, speed, left = row.cells()
        parts = [f"{trial} {row.status} step {step}"]
        parts += [f"score {reward}"] if reward else []
        parts += [f"{speed} tokens/s"] if speed else []
        parts += [f"{left} left"] if left else []
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        made = table("trial", "status", "progress", "step", "score", "tokens/s", "left")
        order = {"running": 0, "failed": 1, "pending": 2, "stopped": 3, "done": 4}
        names = list(self._rows)
        if len(names) > _LARGEST_TABLE:
            names = sorted(names, key=lambda name: order.get(self._rows[name].status, 9))[:_LARGEST_TABLE]
        for name in names:
            row = self._rows[name]
            full = round(row.share() * 16) if row.status != "done" else 16
            bar = Text("━" * full, style=_COLOURS.get(row.status, "")) + Text("━" * (16 - full), style="dim")
            made.add_row(Text(name), Text(row.status, style=_COLOURS.get(row.status, "")), bar, *row.cells())
        counts = {status: sum(row.status == status for row in self._rows.values()) for status in order}
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        elapsed = duration(time.monotonic() - self._began)
        lines = [f"{len(self._rows)} trials: {summary}; {elapsed} since the start", self._looked]
        return Group(made, *(Text(line, style="dim") for line in lines if line))


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()
