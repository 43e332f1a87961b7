"""Judges how a search is made: who proposes, who stops trials, what is compared; before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from orchestrator.contract.roles import ChecksSearch, Searcher
from orchestrator.contract.search import Goal, Known, Proposed, Search, Tried
from orchestrator.contract.sections import ComponentSpec
from orchestrator.contract.settings import Experiment, ReportSettings, Tune, Variation
from orchestrator.errors import ConfigError, Problem, blame, describe
from orchestrator.experiment import search
from orchestrator.experiment.checks import Judged
from orchestrator.experiment.judging import Builder, not_finite
from orchestrator.experiment.measured import metric_problems
from orchestrator.plugging.registry import Registry

_TRAINED = "train"  # the procedure whose evaluations are known
_MOST = 10_000  # proposals of a searcher that is not adaptive


class _Unseen:
    """Stands for a searcher that imports code which the experiment names: a plan does not build it, a run does."""

    adaptive = True

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """Nothing: it is not there."""
        return None


def goals(tune: Tune, report: ReportSettings) -> tuple[Goal, ...]:
    """What a search compares; where it does not say, what the report does."""
    if not tune.metrics:
        return (Goal(report.metric, report.mode),)
    modes = tune.mode if isinstance(tune.mode, tuple) else (tune.mode,) * len(tune.metrics)
    return tuple(Goal(metric, mode) for metric, mode in zip(tune.metrics, modes, strict=True))


def search_of(experiment: Experiment, arm: str) -> Search:
    """What the search of one arm is about.

    :raises ValueError: its space has not been judged
    """
    tune = experiment.tune
    return Search(
        space=search.space(experiment.search),
        goals=goals(tune, experiment.report),
        samples=tune.samples,
        seed=tune.seed,
        arm=arm,
    )


def proposals(searcher: Searcher, about: Search) -> Iterator[Mapping[str, Any]]:
    """All that a searcher proposes which looks at no result.

    :raises ConfigError: there is no end of it
    """
    tried: list[Tried] = []
    events: list[Proposed] = []
    known = Known(tried=tried, events=events)  # grows as proposals come: a grid is large
    while (values := searcher.propose(about, known)) is not None:
        if len(tried) >= max(_MOST, about.samples):
            message = f"proposed {len(tried)} configurations, and there was no end of it"
            raise ConfigError([Problem("tune.searcher", message)])
        tried.append(Tried(index=len(tried), values=values, status="running", scores=None))
        events.append(Proposed(len(events), values))
        yield values


def how_many(variation: Variation, searcher: Searcher | None, enough: int) -> int:
    """How many configurations each arm tries: as many as the budget, or all that a searcher lists, counted so far."""
    tune = variation.tune
    if searcher is None or searcher.adaptive:
        return tune.samples
    about = Search(space=search.space(variation.search), samples=tune.samples, seed=tune.seed)
    counted = sum(1 for _ in itertools.islice(proposals(searcher, about), enough + 1))
    return counted if counted <= enough else max(counted, tune.samples)


def judge(
    judged: Iterable[Judged], variation: Variation, registry: Registry, builder: Builder
) -> tuple[Searcher | None, list[Problem]]:
    """Judge ``tune``, with what its searcher and scheduler have to say of the search.

    :returns: the searcher, None where there is nothing to search or it cannot be built
    """
    tune, arms = variation.tune, [one for one in judged if one.is_sound]
    problems: list[Problem] = []
    searcher = None
    if variation.search or "searcher" in tune.model_fields_set:
        searcher = _built(tune.searcher, "searcher", registry, builder, problems)
    scheduler = None
    if tune.scheduler != "none":
        scheduler = _built(tune.scheduler, "scheduler", registry, builder, problems)
        problems += _scheduler_problems(variation, arms)
    problems += metric_problems(tune, arms, searches=bool(variation.search))
    if not variation.search:
        return None, problems
    report = arms[0].settings.report if arms else ReportSettings()
    compared = goals(tune, report)
    wrong = {problem.path.removeprefix("search.") for problem in search.problems(variation.search)}
    sound = {path: spec for path, spec in search.flatten(variation.search).items() if path not in wrong}
    about = Search(space=search.space(sound), goals=compared, samples=tune.samples, seed=tune.seed)
    for role, spec, component in (("searcher", tune.searcher, searcher), ("scheduler", tune.scheduler, scheduler)):
        if isinstance(spec, ComponentSpec) and isinstance(component, ChecksSearch):
            problems += _said(component, about, registry, role, spec)
    unusable = any(
        problem.path.partition(".")[0] in ("search", "tune") or problem.path == "report.metric" for problem in problems
    )
    return None if unusable else searcher, problems


def _built(spec: ComponentSpec | str, role: str, registry: Registry, builder: Builder, problems: list[Problem]) -> Any:
    assert isinstance(spec, ComponentSpec)
    path = f"tune.{role}"
    found = list(not_finite(spec.options, path))
    choice = None
    if not found:
        choice, found = registry.choose(role, spec.use, spec.options, path)
        if choice is None and spec.use not in registry.names(role):  # written in one word, it has no ``use``
            found = [Problem(path, problem.message) for problem in found]
    if choice is None:
        problems += found
        return None
    part, found = builder.build(choice, path)
    problems += found
    if part is None:
        return None if found else _Unseen()
    return part.component


def _said(
    component: ChecksSearch, about: Search, registry: Registry, role: str, spec: ComponentSpec
) -> Iterator[Problem]:
    """What a searcher or scheduler says of the search; it is a stranger's code, and may raise."""
    try:
        with blame(str(registry.plugin_of(role, spec.use)), where=f"check_search of {role} {spec.use!r}"):
            yield from component.check_search(about)
    except Exception as error:
        yield Problem(f"tune.{role}", f"could not look the search over: {describe(error)}")


def _scheduler_problems(variation: Variation, arms: list[Judged]) -> Iterator[Problem]:
    if not variation.search:
        yield Problem("tune.scheduler", "stops trials of a search early, and there is no `search`; add one, or drop it")
        return
    if len(variation.tune.metrics) > 1:
        yield Problem(
            "tune.scheduler",
            f"stops trials by one number, and tune.metric lists {len(variation.tune.metrics)}; "
            "drop the scheduler, or all metrics but one",
        )
    blind = [one.arm.name for one in arms if one.settings.procedure == _TRAINED and not _looks_between(one)]
    if blind:
        where = "" if len(blind) == len(arms) else f" of {', '.join(blind)}"
        yield Problem(
            "tune.scheduler",
            f"judges evaluations during training, and evaluation.every gives{where} none; set it below schedule.steps, "
            "or drop the scheduler",
        )


def _looks_between(one: Judged) -> bool:
    return 0 < one.settings.evaluation.every < one.settings.schedule.steps
