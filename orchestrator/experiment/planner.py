"""From an experiment to its trials: recipes applied, arms × seeds × search, everything judged before anything runs."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.contract.plan import Phase, Plan, Reference, TrialSpec
from orchestrator.contract.roles import Searcher
from orchestrator.contract.sections import ComponentSpec
from orchestrator.contract.settings import Experiment, Settings, Variation
from orchestrator.errors import ConfigError, Problem
from orchestrator.experiment import search, tuning
from orchestrator.experiment.arms import VARIED, Layout, around_of, lay_out, many_seeds, start_data, start_of
from orchestrator.experiment.checks import Judged
from orchestrator.experiment.commit import commit_of
from orchestrator.experiment.files import resolved
from orchestrator.experiment.judging import Builder, as_kept, judge, searched_problems, variation_problems
from orchestrator.experiment.overlay import at, copy, merge, put
from orchestrator.plugging.options import option_problems
from orchestrator.plugging.registry import Registry

if TYPE_CHECKING:
    from orchestrator.experiment.files import RawExperiment

_FIRST_TUNING_SEED = 1000


def make(raw: RawExperiment, registry: Registry, *, imports: bool = False) -> Plan:
    """Judge an experiment and lay out its trials.

    :param imports: import Python code that the experiment names, such as a function, to judge it too; else it is found,
        parsed and its digest taken
    :raises ConfigError: with every problem found, at the paths the user typed
    """
    problems: list[Problem] = []
    layout = lay_out(raw, registry, problems)
    variation = _variation(layout, problems)
    builder = Builder(registry, imports=imports)
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
    unsearchable = list(_search_problems(judged, variation, layout.around, registry))
    searcher, untunable = tuning.judge(judged, variation, registry, builder)
    problems += unsearchable + untunable
    too_many = list(_too_many(judged, variation, searcher)) if not unsearchable else []
    problems += too_many
    if unsearchable or too_many or searcher is None:  # the plan that plugins look over goes without
        variation = variation.model_copy(update={"search": {}})
    if too_many:
        variation = variation.model_copy(update={"seeds": variation.all_seeds()[:1], "arms": {}})
    sound = [one for one in judged if one.is_sound]
    plan = _lay_out_trials(raw, layout, variation, sound, registry, searcher)
    plan = dataclasses.replace(plan, code={module: code.digest for module, code in sorted(builder.code.items())})
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
    update = determines["update"]
    if update["correction"]["kind"] == "none":  # keys of earlier versions, which had none, stand
        del update["correction"]
    if update["micro_batch_tokens"] == "auto":  # their default; the cut changes rounding alone
        update["micro_batch_tokens"] = 16384
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
    return _tuning_trial(_Arm.of(plan, arm), index, values, seed)


def confirmations(
    plan: Plan, best: Mapping[str, Mapping[str, Any]], seeds: Sequence[int] | None = None
) -> tuple[TrialSpec, ...]:
    """The trials that enter the verdict: each arm's chosen values on each of the seeds.

    :param best: dotted path to value, by arm; arms left out are not confirmed
    :param seeds: None: those that each arm begins with
    """
    wanted = {arm: plan.experiment.first_seeds_of(arm) if seeds is None else tuple(seeds) for arm in plan.arms}
    return tuple(
        _confirmation(_Arm.of(plan, arm), seed, best[arm])
        for seed in (plan.experiment.all_seeds() if seeds is None else seeds)
        for arm in plan.arms
        if arm in best and seed in wanted[arm]
    )


def _variation(layout: Layout, problems: list[Problem]) -> Variation:
    """Judge what is varied; keys with problems get their defaults, so that the rest can be judged."""
    data = dict(layout.variation)
    try:
        return Variation.model_validate(data)
    except ValidationError as error:
        found = option_problems(error, Variation, "", data)
    problems += [
        Problem(one.path, one.message + many_seeds(data["seeds"])) if one.path == "seeds" else one for one in found
    ]
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


def _search_problems(
    judged: list[Judged], variation: Variation, around: Mapping[str, Any], registry: Registry
) -> Iterator[Problem]:
    found = search.problems(variation.search)
    yield from found
    wrong = {problem.path.removeprefix("search.") for problem in found}
    sound = {path: spec for path, spec in variation.search.items() if path not in wrong}
    for dimension in search.space(sound).dimensions:
        arms: dict[Problem, list[str]] = {}
        for one in judged:

            def apply(value: Any, one: Judged = one, path: str = dimension.path) -> dict[str, Any]:
                return _laid(one.arm.data, {path: value}, one.arm.references, around)

            for problem in dict.fromkeys(searched_problems(one, dimension.path, dimension.extremes(), apply, registry)):
                arms.setdefault(problem, []).append(one.arm.name)
        for problem, names in arms.items():
            where = "" if len(names) == len(judged) else f"in {', '.join(names)}: "
            yield Problem(problem.path, where + problem.message)


def _too_many(judged: list[Judged], variation: Variation, searcher: Searcher | None) -> Iterator[Problem]:
    """Refuse a plan of more trials than wanted, before they are laid out."""
    tune, arms = variation.tune, len(judged)
    count, said = sum(len(variation.seeds_of(one.arm.name)) for one in judged), f"{arms} arm(s) x their seeds"
    path = "seeds" if variation.sequential is None else "seeds.at_most"
    if variation.search:
        samples = tuning.how_many(variation, searcher, variation.most_trials)
        count += int(arms * samples * tune.seeds)
        path = "tune.samples" if samples == tune.samples else "search"
        said = f"{arms} arm(s) x {int(samples):,} configurations x {tune.seeds} tuning seed(s), and the confirmations"
    if count > variation.most_trials:
        yield Problem(
            path,
            f"{count:,} trials ({said}), more than most_trials = {variation.most_trials:,}; ask for fewer, or raise it",
        )


def _lay_out_trials(
    raw: RawExperiment,
    layout: Layout,
    variation: Variation,
    judged: list[Judged],
    registry: Registry,
    searcher: Searcher | None,
) -> Plan:
    arms = {one.arm.name: one.settings for one in judged}
    references = {one.arm.name: one.arm.references for one in judged if one.arm.references}
    experiment = _experiment(layout, variation, arms, {one.arm.name: one.arm.data for one in judged})
    around = layout.around
    laid = [_Arm(name=arm, settings=arms[arm], references=references.get(arm, ()), around=around) for arm in arms]
    return Plan(
        name=experiment.name,
        experiment=experiment,
        trials=tuple(_trials(laid, experiment, searcher)),
        fingerprint=registry.manager.fingerprint(),
        arms=arms,
        references=references,
        commit=commit_of(Path(raw.source).resolve().parent if raw.source else Path.cwd()),
        source=raw.source,
    )


def _experiment(
    layout: Layout, variation: Variation, arms: Mapping[str, Settings], kept: Mapping[str, Mapping[str, Any]]
) -> Experiment:
    """What the arms share; what only an arm or its recipe says is not the experiment's."""
    varied = {key: getattr(variation, key) for key in VARIED}
    varied["arms"] = {name: as_kept(own, kept.get(name, {})) for name, own in variation.arms.items()}
    first = next(iter(arms.values()), None)
    if first is None:  # every arm has problems, and the plan is never seen
        return Experiment(name="unsound", environment=ComponentSpec(use="unsound"), **varied)
    keys = [
        key for key in Settings.model_fields if len(arms) == 1 or key in layout.top or key in ("name", "environment")
    ]
    recipe = layout.top.get("recipe")
    shared = {key: getattr(first, key) for key in keys} | {"recipe": recipe if isinstance(recipe, str) else None}
    return Experiment(**shared, **varied)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arm:
    """An arm's settings, and what in them follows from others."""

    name: str
    settings: Settings
    references: tuple[Reference, ...] = ()
    around: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, arm: str) -> _Arm:
        references = plan.references.get(arm, ())
        around = around_of(plan.experiment.model_dump(mode="json", include=set(VARIED))) if references else {}
        return cls(name=arm, settings=plan.arms[arm], references=references, around=around)


def _trials(arms: Sequence[_Arm], experiment: Experiment, searcher: Searcher | None) -> Iterator[TrialSpec]:
    if not experiment.search:
        for seed, arm in itertools.product(experiment.all_seeds(), arms):
            if seed in experiment.first_seeds_of(arm.name):
                yield _confirmation(arm, seed, {})
        return
    if searcher is None or searcher.adaptive:
        return  # it proposes as results come in
    about = tuning.search_of(experiment, arms[0].name if arms else "")
    for index, values in enumerate(tuning.proposals(searcher, about)):
        for seed, arm in itertools.product(_tuning_seeds(experiment), arms):
            yield _tuning_trial(arm, index, values, seed)


def _tuning_seeds(variation: Variation) -> Iterator[int]:
    taken = set(variation.all_seeds())
    unused = (seed for seed in itertools.count(_FIRST_TUNING_SEED) if seed not in taken)
    return itertools.islice(unused, variation.tune.seeds)


def _tuning_trial(arm: _Arm, index: int, values: Mapping[str, Any], seed: int) -> TrialSpec:
    return TrialSpec(
        id=f"tune-{arm.name}-{index:03d}-s{seed}",
        arm=arm.name,
        seed=seed,
        phase=Phase.TUNE,
        sample=index,
        searched=dict(values),
        settings=_with_values(arm, values),
    )


def _confirmation(arm: _Arm, seed: int, values: Mapping[str, Any]) -> TrialSpec:
    return TrialSpec(
        id=f"{arm.name}-s{seed}", arm=arm.name, seed=seed, searched=dict(values), settings=_with_values(arm, values)
    )


def _with_values(arm: _Arm, values: Mapping[str, Any]) -> Settings:
    """Settings with other values of the searched options; the same object where nothing is searched."""
    if not values:
        return arm.settings
    data = _laid(arm.settings.model_dump(mode="json"), values, arm.references, arm.around)
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(option_problems(error, Settings, "", data)) from error


def _laid(
    data: Mapping[str, Any], values: Mapping[str, Any], references: Sequence[Reference], around: Mapping[str, Any]
) -> dict[str, Any]:
    """Lay searched values over an arm's data; what refers to them follows, but what is searched itself does not."""
    made = copy(data)
    for path, value in values.items():
        made = merge(made, at(path, value))
    searched = [tuple(path.split(".")) for path in values]
    following = [
        reference for reference in references if not any(reference.path[: len(path)] == path for path in searched)
    ]
    for reference in following:
        put(made, reference.path, reference.text)
    return resolved(made, around, following) if following else made


def _duplicate_ids(plan: Plan) -> Iterator[Problem]:
    times = Counter(trial.id for trial in plan.trials)
    for twice in sorted(one for one, count in times.items() if count > 1):
        yield Problem("arms", f"two trials would be called {twice!r}; rename an arm")


def _plugins_problems(plan: Plan, registry: Registry) -> Iterator[Problem]:
    """Let plugins look the plan over; with problems elsewhere it holds the arms that have none."""
    if not plan.arms:
        return
    if not plan.trials:  # a searcher proposes them later: what the arms say themselves can be judged now
        own = (_confirmation(_Arm.of(plan, arm), _FIRST_TUNING_SEED, {}) for arm in plan.arms)
        plan = dataclasses.replace(plan, trials=tuple(own))
    for info, found in registry.manager.call_each("check_plan", plan=plan):
        for problem in found:
            if isinstance(problem, Problem):
                yield problem
            else:
                yield Problem("", f"{problem} (plugin {info})")
