"""Judges an experiment: every arm, what is varied, what is searched; all problems at once."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from orchestrator.contract.parts import Part
from orchestrator.contract.secrets import conceal, has_password
from orchestrator.contract.seeds import SeedsUntil
from orchestrator.contract.settings import Settings, Variation
from orchestrator.errors import ConfigError, Problem, describe, did_you_mean
from orchestrator.experiment.arms import Arm, start_data
from orchestrator.experiment.checks import CHECKS, Judged
from orchestrator.experiment.overlay import flatten, put
from orchestrator.plugging.code import NamedCode, find_code
from orchestrator.plugging.locating import absolute, absolute_store, code_named, located, secrets_in
from orchestrator.plugging.options import leaves, option_problems
from orchestrator.plugging.registry import Choice, Registry

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}")
_SINGLE = ("environment", "policy", "sampler", "advantage", "objective")
_BUILT = ("environment", "sampler", "advantage", "objective", "reward")  # policies are dear, the rest is cheap
_NOT_SEARCHED = (
    "name",
    "recipe",
    "procedure",
    "environment",
    "evaluation",
    "budget",
    "resources",
    "tracking",
    "report",
)


class Builder:
    """Builds components at plan time, each distinct one once, so that constructors' errors come out early."""

    def __init__(self, registry: Registry, *, imports: bool):
        """:param imports: build also what imports code that the experiment names; others then judge more of it"""
        self._registry, self._imports = registry, imports
        self.code: dict[str, NamedCode] = {}  # what the experiment names, by module
        self._made: dict[int, tuple[Part | None, list[Problem]]] = {}  # by choice: equal options are the same one
        self._kept: list[Choice] = []  # so that no other object takes their place in memory

    def build(self, choice: Choice, path: str) -> tuple[Part | None, list[Problem]]:
        """Build one component; what it raises becomes a problem that names the plugin."""
        key = id(choice)
        if key not in self._made:
            found = [(path, marker, find_code(marker, text)) for path, marker, text in code_named(choice)]
            self.code |= {code.module: code for _, _, code in found if code.problem is None}
            wrong = [Problem(f"{choice.role}.{where}", code.problem) for where, _, code in found if code.problem]
            if wrong or (not self._imports and any(not marker.deferred for _, marker, _ in found)):
                self._made[key] = None, wrong
                self._kept.append(choice)
        if key not in self._made:
            try:
                self._made[key] = self._registry.assemble(choice), []
            except ConfigError as error:
                self._made[key] = None, list(error.problems)
            except Exception as error:
                self._made[key] = None, [Problem("", f"cannot be built: {describe(error)}")]
            self._kept.append(choice)
        built, problems = self._made[key]
        return built, [Problem(_placed(problem.path, choice.role, path), problem.message) for problem in problems]


def _placed(own: str, role: str, path: str) -> str:
    """Where in the experiment the trouble is that a component calls ``environment.id``, say, wherever it stands itself."""
    head, _, option = own.partition(".")
    return f"{path}.{option}" if head == role and option else path


def judge(arm: Arm, registry: Registry, builder: Builder) -> tuple[Judged, list[Problem]]:
    """Judge one arm: types, options, what its components need of each other."""
    problems = list(_open_secrets(arm.data))
    arm = _kept(arm, registry, problems)
    settings, unsound = _settings(arm.data, problems)
    built: dict[str, Part] = {}
    chosen: dict[str, Choice] = {}
    for path, role, spec in _component_specs(arm.data):
        options = _options(role, spec)
        choice, found = None, list(not_finite(options, path))
        if not found:
            choice, found = registry.choose(role, spec["use"], options, path)
        if choice is not None:
            chosen[path] = choice
            if role in _BUILT:
                part, found = builder.build(choice, path)
                if part is not None:
                    built[path] = part
        if found:
            unsound = unsound | {path.partition(".")[0]}
        problems += found
    judged = Judged(arm=arm, settings=settings, unsound=unsound, built=built, chosen=chosen)
    for reads, check in CHECKS:
        if not unsound.intersection(reads):
            problems += check(judged, registry)
    return judged, [Problem(arm.typed(problem.path), problem.message) for problem in problems]


def _kept(arm: Arm, registry: Registry, problems: list[Problem]) -> Arm:
    """An arm as a plan keeps it: files by their absolute paths, secrets hidden and referred to."""
    written = {".".join(reference.path): reference.text for reference in arm.references}
    try:
        data = _placed_files(arm.data, registry, written)
        tracking = data.get("tracking")
        if isinstance(tracking, Mapping) and isinstance(tracking.get("uri"), str):
            hidden = conceal(absolute_store(tracking["uri"]), "tracking.uri", written.get("tracking.uri"))
            data["tracking"] = {**tracking, "uri": hidden}
    except ConfigError as error:
        problems += error.problems
        return arm
    placed = flatten(data)
    references = tuple(
        reference for reference in arm.references if placed.get(".".join(reference.path)) != reference.text
    )
    return replace(arm, data=data, references=references)


def _placed_files(
    data: Mapping[str, Any], registry: Registry, written: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """An arm's data with every file it names as an absolute path, secrets hidden; what is unsound stays as it is."""
    made = dict(data)
    rewards = data.get("rewards")
    made |= {"rewards": list(rewards)} if isinstance(rewards, list | tuple) else {}
    for path, role, spec in _component_specs(data):
        options = _options(role, spec)
        if any(not_finite(options, path)):
            continue
        choice, _ = registry.choose(role, spec["use"], options, path)
        if choice is not None:
            own = {
                place.removeprefix(f"{path}."): text
                for place, text in (written or {}).items()
                if place.startswith(f"{path}.")
            }
            put(made, path.split("."), {**spec, **located(choice, options, own)})
    start = data.get("start")
    if isinstance(start, Mapping):
        made["start"] = _placed_start(made, registry, written or {})
    return made


def _placed_start(data: Mapping[str, Any], registry: Registry, written: Mapping[str, str]) -> dict[str, Any]:
    """The same of an arm's start phase, and of those before it."""
    start = dict(data["start"])
    if isinstance(start.get("checkpoint"), str):
        start["checkpoint"] = absolute(start["checkpoint"])
    try:
        own = {path.removeprefix("start."): text for path, text in written.items() if path.startswith("start.")}
        phase = _placed_files(start_data(data), registry, {**written, **own})
    except (TypeError, AttributeError):  # of a shape that the settings model refuses
        return start
    for key in ("environment", "sampler", "advantage", "objective", "rewards", "start"):
        start |= {key: _like(start[key], phase[key])} if key in start and key in phase else {}
    return start


def _open_secrets(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Passwords where no setting takes one, so that none is hidden."""
    hiding = (*_SINGLE, "rewards", "start.environment", *(f"start.{part}" for part in (*_SINGLE, "rewards")))
    for path, value in leaves(data):
        hides = path == "tracking.uri" or any(path.startswith(f"{place}.") for place in hiding)
        if isinstance(value, str) and has_password(value) and not hides:
            yield Problem(path, "an address with a password, which is kept nowhere but in tracking.uri and in options")


def as_kept(written: Any, kept: Any) -> Any:
    """An arm's overlay with files and secrets as the arm keeps them; references stay as written."""
    if isinstance(written, Mapping) and isinstance(kept, Mapping):
        return {key: as_kept(value, kept[key]) if key in kept else value for key, value in written.items()}
    if isinstance(written, list | tuple) and isinstance(kept, list | tuple) and len(written) == len(kept):
        return [as_kept(one, other) for one, other in zip(written, kept, strict=True)]
    is_text = isinstance(written, str) and isinstance(kept, str) and "${" not in written
    return kept if is_text else written


def _like(written: Any, placed: Any) -> Any:
    """What was written, with the values that stand at its places in the placed data."""
    if isinstance(written, Mapping) and isinstance(placed, Mapping):
        return {key: _like(value, placed[key]) if key in placed else value for key, value in written.items()}
    if isinstance(written, list | tuple) and isinstance(placed, list | tuple) and len(written) == len(placed):
        return [_like(one, other) for one, other in zip(written, placed, strict=True)]
    return placed if isinstance(written, str) and isinstance(placed, str) else written


def variation_problems(judged: Iterable[Judged], variation: Variation) -> Iterator[Problem]:
    """Judge what the experiment varies against itself and against the arms."""
    names = [one.arm.name for one in judged]
    for name in names if variation.arms else ():
        if not _SAFE_NAME.fullmatch(name):
            yield Problem(
                f"arms.{name}",
                f"{name!r} names files: use at most 80 letters, digits and `_ . + -`, a letter or digit first",
            )
    folded: dict[str, str] = {}
    for name in names:
        if name.lower() in folded:
            yield Problem(
                f"arms.{name}",
                f"differs from arm {folded[name.lower()]!r} only in case, which some file systems ignore",
            )
        folded.setdefault(name.lower(), name)
    owners = [arm for arm, own in variation.arms.items() if own.get("seeds")]
    lists = {}
    if not isinstance(variation.seeds, SeedsUntil):
        lists = {"seeds": variation.seeds, **{f"arms.{arm}.seeds": variation.seeds_of(arm) for arm in owners}}
    elif owners:
        said = "an arm cannot have its own: seeds are added to all of them look by look; list them, or leave these out"
        yield from (Problem(f"arms.{arm}.seeds", said) for arm in owners)
    if isinstance(variation.seeds, SeedsUntil) and len(names) < 2:
        yield Problem("seeds", "one arm is never decided, since there is nothing to compare; expected a list of seeds")
    for path, seeds in lists.items():
        twice = sorted(seed for seed, times in Counter(seeds).items() if times > 1)
        if twice:
            yield Problem(path, f"{', '.join(map(str, twice))} more than once; the same trial would count twice")
    for one in itertools.islice(judged, 1):
        if one.settings.report.compare == "best" and one.settings.report.baseline is not None:
            yield Problem("report.baseline", "report.compare: best has no baseline; leave one of them out")
        if one.settings.report.compare == "best" and len(names) < 2:
            yield Problem("report.compare", "best of one arm; expected at least two arms")
    for one in judged:
        baseline = one.settings.report.baseline
        if baseline is not None and baseline not in names:
            yield Problem(
                "report.baseline", f"no arm {baseline!r}{did_you_mean(baseline, names)} Arms: {', '.join(names)}"
            )


def searched_problems(
    judged: Judged, path: str, values: Iterable[Any], apply: Callable[[Any], Any], registry: Registry
) -> Iterator[Problem]:
    """Judge a searched option in one arm: that it exists, and that every value is within its bounds.

    :param apply: lays a value of the option over the arm's data
    """
    top = path.partition(".")[0]
    if top in _NOT_SEARCHED or top not in Settings.model_fields:
        near = did_you_mean(top, Settings.model_fields)
        reason = "decides what is compared and cannot be searched" if top in _NOT_SEARCHED else f"is no option{near}"
        yield Problem(f"search.{path}", f"{top} {reason}")
        return
    if top in judged.unsound:
        return
    tops = {top} | {reference.path[0] for reference in judged.arm.references} - judged.unsound
    for value in values:
        try:
            data = apply(value)
        except ConfigError as error:
            yield from (Problem(f"search.{path}", f"{problem}") for problem in error.problems)
            continue
        problems: list[Problem] = []
        _settings(data, problems)
        secret = {place for place, text in leaves(value, path) if isinstance(text, str) and has_password(text)}
        for where, role, spec in _component_specs(data):
            if where.partition(".")[0] in tops:
                choice, found = registry.choose(role, spec["use"], _options(role, spec), where)
                problems += found
                secret |= {f"{where}.{place}" for place in secrets_in(choice)} if choice else set()
        given = {place for place, _ in leaves(value, path)}
        problems += [
            Problem(place, "holds a secret, and the values of a search are kept; write it outside of the search")
            for place in sorted(secret & given)
        ]
        for problem in problems:
            if problem.path.partition(".")[0] in tops:
                detail = "" if problem.path == path else f"{problem.path}: "
                yield Problem(f"search.{path}", f"{detail}{problem.message}")


def _settings(data: Mapping[str, Any], problems: list[Problem]) -> tuple[Settings, frozenset[str]]:
    """Judge an arm's data; sections with problems are replaced by their defaults."""
    try:
        return Settings.model_validate(data), frozenset()
    except ValidationError as error:
        found = option_problems(error, Settings, "", data)
    problems += [_helped(problem) for problem in found]
    unsound = frozenset(problem.path.partition(".")[0] for problem in found)
    rest = {key: value for key, value in data.items() if key not in unsound}
    rest.setdefault("name", "unnamed")
    rest.setdefault("environment", {"use": "unknown"})
    return Settings.model_validate(rest), unsound


def _helped(problem: Problem) -> Problem:
    if problem.message.startswith("missing") and problem.path == "environment":
        return Problem(problem.path, "missing; name the world to act in, as in environment: {use: countdown}")
    if problem.message.startswith("missing") and problem.path == "name":
        return Problem(problem.path, "missing; it names the run's directory")
    if problem.message.startswith("missing") and problem.path.endswith(".use"):
        return Problem(problem.path, "missing; name the component these options are for, or a recipe that does")
    return problem


def _component_specs(data: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Path, role and specification of every component whose ``use`` can be looked up."""
    for key in _SINGLE:
        spec = data.get(key)
        if isinstance(spec, Mapping) and isinstance(spec.get("use"), str):
            yield key, key, spec
    rewards = data.get("rewards")
    for index, spec in enumerate(rewards if isinstance(rewards, list | tuple) else ()):
        if isinstance(spec, Mapping) and isinstance(spec.get("use"), str):
            yield f"rewards.{index}", "reward", spec


def _options(role: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "use" and (role, key) != ("reward", "weight")}


def not_finite(options: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Numbers among a component's options that no plan can hold: JSON has only finite ones."""
    for place, value in leaves(options, path):
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(place, f"Input should be a finite number; got {value}")
