"""Shows a plan before it runs: its trials, every resolved option, and how large it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from orchestrator.cli.console import table
from orchestrator.cli.expense import show_expense
from orchestrator.contract.plan import Phase
from orchestrator.experiment.estimate import Estimate, estimate
from orchestrator.experiment.expanded import expanded
from orchestrator.experiment.overlay import flatten
from orchestrator.plugging.registry import Registry
from orchestrator.verdict.foresight import Foresight, foresee
from orchestrator.verdict.wording import count_text, margin_text, metric_label, number, percent

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.contract.plan import Plan
    from orchestrator.contract.sections import ComponentSpec
    from orchestrator.runs.measurements import Measurement
    from orchestrator.runs.study import Study

_FEWEST_FOLDED = 13  # longer lists of trials show their first and last ones


def show_plan(
    plan: Plan,
    registry: Registry,
    console: Console,
    like: Study | None = None,
    known: Mapping[str, Measurement | None] | None = None,
) -> None:
    """Print what would run, what it could find, and what it will take.

    :param like: an earlier run that says how seeds scatter and what trials cost
    :param known: what was measured on this machine, by arm
    """
    resolved = {arm: expanded(settings, registry) for arm, settings in plan.arms.items()}
    _show_options(resolved, console)
    _show_search(plan, console)
    _show_trials(plan, console)
    sizes = {arm: estimate(settings, registry) for arm, settings in plan.arms.items()}
    _show_size(sizes, console)
    _show_missing_tasks(plan, sizes, console)
    _show_foresight(foresee(plan, sizes, like), console)
    show_expense(plan, sizes, known or {}, like, console)


def _show_options(resolved: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    flat = {arm: flatten(settings) for arm, settings in resolved.items()}
    paths = list(dict.fromkeys(path for options in flat.values() for path in options))
    shared = [path for path in paths if len({_word(options.get(path)) for options in flat.values()}) == 1]
    console.print(Text("options of every arm" if len(flat) > 1 else "options", style="bold"))
    first = next(iter(flat.values()))
    for path in shared:
        if first.get(path) not in (None, []):
            console.print(Text(f"  {path} = {_word(first[path])}"), soft_wrap=True)
    if len(flat) == 1:
        return
    for arm, options in flat.items():
        console.print(Text(f"\narm {arm}", style="bold"))
        for path in paths:
            if path not in shared and options.get(path) is not None:
                console.print(Text(f"  {path} = {_word(options[path])}"), soft_wrap=True)


def _show_search(plan: Plan, console: Console) -> None:
    if not plan.experiment.search:
        return
    tune = plan.experiment.tune
    console.print(Text("\nsearch", style="bold"))
    for path, spec in plan.experiment.search.items():
        console.print(Text(f"  {path} ~ {_word(spec)}"), soft_wrap=True)
    listed = {(trial.arm, trial.sample) for trial in plan.trials if trial.phase is Phase.TUNE}
    samples = len(listed) // max(1, len(plan.arms)) or f"up to {tune.samples}"
    front = "the one of its Pareto front that is best by the first metric" if len(tune.metrics) > 1 else "the best"
    console.print(
        Text(
            f"  {samples} configurations per arm on {tune.seeds} tuning seed(s), searcher {_component(tune.searcher)}, "
            f"scheduler {_component(tune.scheduler)}; of each arm {front} is confirmed on seeds "
            f"{list(plan.experiment.all_seeds())}"
        ),
        soft_wrap=True,
    )


def _component(spec: ComponentSpec | str) -> str:
    """A searcher or scheduler with its options, in one line."""
    if isinstance(spec, str):
        return spec
    options = ", ".join(f"{name}={_word(value)}" for name, value in spec.options.items() if value is not None)
    return f"{spec.use} ({options})" if options else spec.use


def _show_trials(plan: Plan, console: Console) -> None:
    _show_course(plan, console)
    made = table("trial", "arm", "seed", "phase", "searched")
    trials = list(plan.trials)
    hidden = len(trials) - _FEWEST_FOLDED + 1
    for index, trial in enumerate(trials):
        if hidden > 1 and _FEWEST_FOLDED - 3 <= index < len(trials) - 2:
            if index == _FEWEST_FOLDED - 3:
                made.add_row(f"... {len(trials) - _FEWEST_FOLDED + 1} more", "", "", "", "")
            continue
        searched = ", ".join(f"{path}={_word(value)}" for path, value in trial.searched.items())
        made.add_row(trial.id, trial.arm, str(trial.seed), str(trial.phase), searched)
    console.print(Text(f"\n{len(trials)} trials known now", style="bold"))
    if trials:
        console.print(made)


def _show_course(plan: Plan, console: Console) -> None:
    """Seeds added look by look: when, and how many trials at most."""
    design = plan.experiment.sequential
    if design is None:
        return
    looks = ", ".join(map(str, design.course))
    compared = "until one arm is the best, or those left are tied" if _races(plan) else "until every arm is decided"
    lines = [
        f"{design.first} to {design.at_most} seeds an arm, {compared}; looks after {looks} seeds",
        f"{design.first * len(plan.arms)} trials at the first look, at most {design.at_most * len(plan.arms)}",
    ]
    if plan.experiment.report.margin is None:
        lines.append("without report.margin no arm is ever equivalent, so that equal arms take all seeds")
    console.print(Text("\nseeds", style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _races(plan: Plan) -> bool:
    return plan.experiment.report.compare == "best"


def _show_size(sizes: Mapping[str, Estimate], console: Console) -> None:
    made = table("arm", "steps", "rollouts a step", "rollouts", "evaluation rollouts", "generated tokens")
    for arm, size in sizes.items():
        rollouts = "unknown" if size.rollouts is None else f"{size.rollouts:,}"
        per_step = "unknown" if size.rollouts_per_step is None else f"{size.rollouts_per_step:,}"
        made.add_row(arm, f"{size.steps:,}", per_step, rollouts, f"{size.evaluation_rollouts:,}", _tokens(size))
    console.print(Text("\nsize of one trial, by arm", style="bold"))
    console.print(made)


def _show_missing_tasks(plan: Plan, sizes: Mapping[str, Estimate], console: Console) -> None:
    """Say where an environment has fewer held-out tasks than were asked for."""
    for arm, settings in plan.arms.items():
        wanted, there = settings.evaluation.tasks, sizes[arm].evaluation_tasks
        if there < wanted:
            said = (
                f"{arm}: evaluated on {there} tasks; {settings.environment.use} has no more (evaluation.tasks={wanted})"
            )
            console.print(Text(said, style="yellow"), soft_wrap=True)


def _show_foresight(found: Foresight | None, console: Console) -> None:
    """What the plan can find, before a token is spent."""
    if found is None:
        return
    console.print(Text("\nwhat it can find", style="bold"))
    for line in _foreseen(found):
        console.print(Text(f"  {line}"), soft_wrap=True)
    if found.alternatives:
        made = table("change", "finds", "tokens")
        for row in found.alternatives:
            made.add_row(row.change, number(row.smallest), "unknown" if row.tokens is None else percent(row.tokens))
        console.print(made)


def _foreseen(found: Foresight) -> Iterator[str]:
    against = len(found.counts) - 1
    seeds = " and ".join(str(n) for n in dict.fromkeys((found.counts[0], *found.counts[1:])))
    design = f"{seeds} seed{'s' * (seeds != '1')}, {against} arm{'s' if against > 1 else ''} against {found.baseline}"
    if min(found.counts) < 2:
        yield f"nothing: {design}, and one seed cannot tell a method from its luck"
    elif found.noise is None:
        yield f"unknown: {found.source} ({design})"
    elif found.smallest is None:
        yield f"which of {len(found.counts)} arms is the best, or which are tied with it"
    else:
        yield (
            f"a difference of {number(found.smallest)} in {metric_label(found.metric)}, averaged over the last fifth of "
            f"the common cost, in four of five cases ({design})"
        )
    if found.noise is not None:
        yield (
            f"scatter over seeds {number(found.noise.total**0.5)} ({found.source}); evaluation makes "
            f"{percent(round(found.noise.share, 2))} of its variance"
        )
    if found.equivalence is not None:
        yield f"equal arms called equivalent within {margin_text(found.margin)} in {percent(round(found.equivalence, 2))}"
    for words, trials in found.expected:
        yield f"about {trials:.0f} trials where {words}, of {sum(found.counts)} at most"
    cost = found.cost
    tokens = (
        "unknown"
        if cost.training_tokens is None or cost.evaluation_tokens is None
        else f"{'at most ' if cost.at_most else ''}{count_text(cost.training_tokens)} of training and "
        f"{count_text(cost.evaluation_tokens)} of evaluation{' per turn' if cost.at_most else ''}"
    )
    yield f"expected tokens of the trials compared: {tokens}"


def _tokens(size: Estimate) -> str:
    most = "unknown" if size.rollouts is None else f"at most {size.rollouts * size.tokens_per_action:,} per turn"
    return most if size.budget is None else f"{most}; stops at {size.budget:,}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
