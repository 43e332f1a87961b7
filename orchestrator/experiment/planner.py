"""From an experiment to its trials: recipes applied, arms × seeds × search, everything judged before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.contract.plan import Phase, Plan, TrialSpec
from orchestrator.contract.settings import ComponentSpec, Experiment, Settings, Variation
from orchestrator.errors import ConfigError, Problem
from orchestrator.experiment import search
from orchestrator.experiment.arms import VARIED, Layout, lay_out, start_data, start_of
from orchestrator.experiment.checks import Judged
from orchestrator.experiment.judging import Builder, judge, searched_problems, variation_problems
from orchestrator.experiment.overlay import at, merge
from orchestrator.plugging.options import option_problems
from orchestrator.plugging.registry import Registry

if TYPE_CHECKING:
    from orchestrator.experiment.files import RawExperiment

_FIRST_TUNING_SEED = 1000


def make(raw: RawExperiment, registry: Registry) -> Plan:
    """Judge an experiment and lay out its trials.

    :raises ConfigError: with every problem found, at the paths the user typed
    """
    problems: list[Problem] = []
    layout = lay_out(raw, registry, problems)
    variation = _variation(layout, problems)
    builder = Builder(registry)
    judged: list[Judged] = []
    for arm in layout.arms:
        one, found = judge(arm, registry, builder)
        judged.append(one)
        problems += found
        phase = start_of(arm)
        while phase is not None:
            problems += judge(phase, registry, builder)[1]
            phase = start_of(phase)
    problems += variation_problems(judged, variation)
    unsearchable = list(_search_problems(judged, variation, registry))
    problems += unsearchable
    if unsearchable:  # the plan that plugins look over goes without
        variation = variation.model_copy(update={"search": {}})
    plan = _lay_out_trials(raw, layout, variation, [one for one in judged if one.is_sound], registry)
    problems += _duplicate_ids(plan)
    problems += _plugins_problems(plan, registry)
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return plan


def start_settings(settings: Settings) -> Settings | None:
    """Settings of the start phase that a trial with these settings begins with; None where it runs none.

    The phase acts in the trial's world (with the phase's overlay), with its policy and its limits on episodes;
    everything else is the phase's own, a phase before it included.
    """
    if settings.start is None or settings.start.recipe is None:
        return None
    phase = Settings.model_validate(start_data(settings.model_dump(mode="json", exclude_unset=True)))
    shared = {
        "recipe": settings.start.recipe,
        "evaluation": settings.evaluation.model_copy(update={"every": 0, "first": False}),
        "failures": settings.failures,
        "resources": settings.resources,
        "tracking": settings.tracking,
    }
    return phase.model_copy(update=shared)


def start_key(settings: Settings) -> str:
    """Content hash of everything that determines the start phase's weights; trials with equal keys share the phase.

    :raises ValueError: these settings have no start phase
    """
    phase = start_settings(settings)
    if phase is None or settings.start is None:
        raise ValueError("these settings have no start phase")
    determines = phase.model_dump(
        mode="json",
        include={"environment", "policy", "sampler", "rewards", "advantage", "objective"}
        | {"schedule", "optimizer", "update", "sampling"},
    )
    parts: list[Any] = [determines, settings.start.seed]
    if phase.start is not None:
        parts.append(phase.start.checkpoint if phase.start.recipe is None else start_key(phase))
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tuning_seeds(plan: Plan) -> tuple[int, ...]:
    """Seeds of tuning trials: as many as ``tune.seeds``, none of them among the experiment's own."""
    return tuple(_tuning_seeds(plan.experiment))


def tuning_trial(plan: Plan, arm: str, index: int, values: Mapping[str, Any], seed: int) -> TrialSpec:
    """One searched configuration of an arm on one tuning seed.

    :param index: place of the configuration among those of the arm
    :param values: dotted path to value
    :raises ConfigError: the values do not fit the arm's options
    """
    return _tuning_trial(plan.arms[arm], arm, index, values, seed)


def confirmations(plan: Plan, best: Mapping[str, Mapping[str, Any]]) -> tuple[TrialSpec, ...]:
    """The trials that enter the verdict: each arm's chosen values on each of the experiment's seeds.

    :param best: dotted path to value, by arm; arms left out are not confirmed
    """
    return tuple(
        _confirmation(plan.arms[arm], arm, seed, best[arm])
        for seed in plan.experiment.all_seeds()
        for arm in plan.arms
        if arm in best and seed in plan.experiment.seeds_of(arm)
    )


def _variation(layout: Layout, problems: list[Problem]) -> Variation:
    """Judge what is varied; keys with problems get their defaults, so that the rest can be judged."""
    data = dict(layout.variation)
    try:
        return Variation.model_validate(data)
    except ValidationError as error:
        found = option_problems(error, Variation, "", data)
    problems += found
    for problem in found:
        top, _, entry = problem.path.partition(".")
        entries = data.get(top)
        if isinstance(entries, Mapping) and entry.partition(".")[0] in entries:  # an arm
            data[top] = {key: value for key, value in entries.items() if key != entry.partition(".")[0]}
        elif isinstance(entries, Mapping) and entry in entries:  # a searched path, which has dots of its own
            data[top] = {key: value for key, value in entries.items() if key != entry}
        else:
            data.pop(top, None)
    return Variation.model_validate(data)


def _search_problems(judged: list[Judged], variation: Variation, registry: Registry) -> Iterator[Problem]:
    found = search.problems(variation.search, searcher=variation.tune.searcher)
    yield from found
    wrong = {problem.path.removeprefix("search.") for problem in found}
    sound = {path: spec for path, spec in variation.search.items() if path not in wrong}
    for dimension in search.space(sound).dimensions:
        arms: dict[Problem, list[str]] = {}
        for one in judged:

            def apply(value: Any, one: Judged = one, path: str = dimension.path) -> dict[str, Any]:
                return merge(one.arm.data, at(path, value))

            for problem in dict.fromkeys(searched_problems(one, dimension.path, dimension.extremes(), apply, registry)):
                arms.setdefault(problem, []).append(one.arm.name)
        for problem, names in arms.items():
            where = "" if len(names) == len(judged) else f"in {', '.join(names)}: "
            yield Problem(problem.path, where + problem.message)


def _lay_out_trials(
    raw: RawExperiment, layout: Layout, variation: Variation, judged: list[Judged], registry: Registry
) -> Plan:
    arms = {one.arm.name: one.settings for one in judged}
    experiment = _experiment(layout, variation, arms)
    return Plan(
        name=experiment.name,
        experiment=experiment,
        trials=tuple(_trials(arms, variation)),
        fingerprint=registry.manager.fingerprint(),
        arms=arms,
        commit=_commit(raw.source),
        source=raw.source,
    )


def _experiment(layout: Layout, variation: Variation, arms: Mapping[str, Settings]) -> Experiment:
    """What the arms share; what only an arm or its recipe says is not the experiment's."""
    varied = {key: getattr(variation, key) for key in VARIED}
    first = next(iter(arms.values()), None)
    if first is None:  # every arm has problems, and the plan is never seen
        return Experiment(name="unsound", environment=ComponentSpec(use="unsound"), **varied)
    keys = [
        key for key in Settings.model_fields if len(arms) == 1 or key in layout.top or key in ("name", "environment")
    ]
    recipe = layout.top.get("recipe")
    shared = {key: getattr(first, key) for key in keys} | {"recipe": recipe if isinstance(recipe, str) else None}
    return Experiment(**shared, **varied)


def _trials(arms: Mapping[str, Settings], variation: Variation) -> Iterator[TrialSpec]:
    if not variation.search:
        for seed, (arm, settings) in itertools.product(variation.all_seeds(), arms.items()):
            if seed in variation.seeds_of(arm):
                yield _confirmation(settings, arm, seed, {})
        return
    tune = variation.tune
    if tune.searcher == "optuna":
        return  # it proposes as results come in
    space = search.space(variation.search)
    configurations = space.grid() if tune.searcher == "grid" else space.sample(tune.samples, tune.seed)
    for index, values in enumerate(configurations):
        for seed, (arm, settings) in itertools.product(_tuning_seeds(variation), arms.items()):
            yield _tuning_trial(settings, arm, index, values, seed)


def _tuning_seeds(variation: Variation) -> Iterator[int]:
    unused = (seed for seed in itertools.count(_FIRST_TUNING_SEED) if seed not in variation.all_seeds())
    return itertools.islice(unused, variation.tune.seeds)


def _tuning_trial(settings: Settings, arm: str, index: int, values: Mapping[str, Any], seed: int) -> TrialSpec:
    return TrialSpec(
        id=f"tune-{arm}-{index:03d}-s{seed}",
        arm=arm,
        seed=seed,
        phase=Phase.TUNE,
        sample=index,
        searched=dict(values),
        settings=_with_values(settings, values),
    )


def _confirmation(settings: Settings, arm: str, seed: int, values: Mapping[str, Any]) -> TrialSpec:
    return TrialSpec(
        id=f"{arm}-s{seed}", arm=arm, seed=seed, searched=dict(values), settings=_with_values(settings, values)
    )


def _with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Settings with other values of the searched options; the same object where nothing is searched."""
    if not values:
        return settings
    data = settings.model_dump(mode="json")
    for path, value in values.items():
        data = merge(data, at(path, value))
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(option_problems(error, Settings, "", data)) from error


def _duplicate_ids(plan: Plan) -> Iterator[Problem]:
    ids = [trial.id for trial in plan.trials]
    for twice in sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else ():
        yield Problem("arms", f"two trials would be called {twice!r}; rename an arm")


def _plugins_problems(plan: Plan, registry: Registry) -> Iterator[Problem]:
    """Let plugins look the plan over; with problems elsewhere it holds the arms that have none."""
    if not plan.arms:
        return
    if not plan.trials:  # a searcher proposes them later: what the arms say themselves can be judged now
        own = (_confirmation(config, arm, _FIRST_TUNING_SEED, {}) for arm, config in plan.arms.items())
        plan = dataclasses.replace(plan, trials=tuple(own))
    for info, found in registry.manager.call_each("check_plan", plan=plan):
        for problem in found:
            if isinstance(problem, Problem):
                yield problem
            else:
                yield Problem("", f"{problem} (plugin {info})")


def _commit(source: str | None) -> str | None:
    """Commit of the repository that holds the experiment file; ``+changes`` when the tree differs from it."""
    folder = Path(source).resolve().parent if source else Path.cwd()
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None
