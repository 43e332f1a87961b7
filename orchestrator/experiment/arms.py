"""Lays an experiment out by arm: recipe under file under arm under command line, remembering who wrote what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from orchestrator.contract.component import RECIPE_KEYS
from orchestrator.contract.plan import Reference
from orchestrator.contract.seeds import Seeds
from orchestrator.contract.settings import Experiment, Settings, Variation
from orchestrator.errors import Problem, did_you_mean
from orchestrator.experiment.files import missing, references, resolve, spelt_out
from orchestrator.experiment.overlay import at, copy, depth_reached, drop, merge, put
from orchestrator.experiment.search import flatten, repeated

if TYPE_CHECKING:
    from orchestrator.experiment.files import RawExperiment
    from orchestrator.plugging.registry import Registry

VARIED = frozenset(Variation.model_fields)
OWN = "seeds"  # what is varied and may yet be an arm's own
_SEEDS = TypeAdapter(Seeds)
_DEFAULTS = {
    key: field.default.model_dump(mode="json")
    for key, field in Experiment.model_fields.items()
    if isinstance(field.default, BaseModel)
}
_PHASE_KEYS = (*RECIPE_KEYS, "environment", "start")
SHARED = ("name", "evaluation", "tracking", "report")  # an arm may not change how arms are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Settings from one origin; ``prefix`` turns a path inside it into the path the user typed."""

    prefix: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm (or its start phase): all settings merged, and the layers they came from, lowest first."""

    name: str
    layers: tuple[Layer, ...]
    data: Mapping[str, Any]
    references: tuple[Reference, ...] = ()  # what in the data follows from other settings
    home: str = ""  # where the user would write what nobody wrote yet
    recipe_found: bool = True  # False: its roles are missing for a reason already reported

    def typed(self, path: str) -> str:
        """The path as the user typed it: in the arm, at the top of the file, or inside a recipe."""
        parts = path.split(".")
        reached = [depth_reached(layer.data, parts) for layer in self.layers]
        deepest = max(reached, default=0)
        if deepest == 0:
            return self.home + path
        highest = max(place for place, depth in enumerate(reached) if depth == deepest)
        return self.layers[highest].prefix + path


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An experiment laid out by arm."""

    arms: tuple[Arm, ...]
    variation: Mapping[str, Any]  # seeds, search, tune and arms as written
    top: Mapping[str, Any]  # what all arms share, command line included
    around: Mapping[str, Any]  # what references may name beside an arm's own settings


def lay_out(raw: RawExperiment, registry: Registry, problems: list[Problem]) -> Layout:
    """Merge every arm of an experiment; unknown keys and recipes go to ``problems`` and are left out."""
    file, overrides = (_known_keys(layer, problems) for layer in spelt_out(raw.file, raw.overrides))
    problems += raw.unknown_arms.values()
    if raw.unknown_arms:
        heard = {name: overlay for name, overlay in overrides["arms"].items() if name not in raw.unknown_arms}
        overrides["arms"] = heard
    top = [
        Layer(prefix="", data={key: value for key, value in layer.items() if key not in VARIED})
        for layer in (file, overrides)
    ]
    shared = merge(top[0].data, top[1].data)
    variation = _variation(file, overrides, shared, problems)
    around = around_of(variation)
    overlays = variation.get("arms")
    if not isinstance(overlays, Mapping) or not overlays:
        name = _only_arm_name(shared, around)
        arm = _arm(name, [top[0], top[1]], around, registry, problems)
        return Layout(arms=(arm,), variation=variation, top=shared, around=around)
    arms = []
    for name in overlays:
        own = [
            Layer(prefix=f"arms.{name}.", data=_arm_keys(name, layer.get("arms"), problems))
            for layer in (file, overrides)
        ]
        arms.append(_arm(name, [top[0], own[0], top[1], own[1]], around, registry, problems))
    return Layout(arms=tuple(arms), variation=variation, top=shared, around=around)


def around_of(variation: Mapping[str, Any]) -> dict[str, Any]:
    """What references may name beside an arm's own settings: what is varied, and the core's defaults."""
    return {**copy(_DEFAULTS), **{key: copy(value) for key, value in variation.items() if value is not None}}


def _variation(
    file: Mapping[str, Any], overrides: Mapping[str, Any], shared: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """Seeds, search, tune and arms as written, references but those of arms resolved."""
    variation = {
        key: merge(file[key], overrides[key]) if key in file and key in overrides else copy({**file, **overrides}[key])
        for key in Variation.model_fields
        if key in file or key in overrides
    }
    if isinstance(variation.get("search"), Mapping):
        layers = [layer["search"] for layer in (file, overrides) if isinstance(layer.get("search"), Mapping)]
        problems += [problem for layer in layers for problem in repeated(layer)]
        variation["search"] = {path: spec for layer in layers for path, spec in flatten(layer).items()}
    if isinstance(variation.get("arms"), Mapping):
        variation["arms"] = {name: {} if overlay is None else overlay for name, overlay in variation["arms"].items()}
    around = merge(around_of(variation), shared)
    own = (
        {
            name: {OWN: overlay[OWN]}
            for name, overlay in (variation.get("arms") or {}).items()
            if isinstance(overlay, Mapping) and OWN in overlay
        }
        if isinstance(variation.get("arms"), Mapping)
        else {}
    )
    settled = _settled({**variation, "arms": own}, around, str, problems)[0]
    if "arms" in variation and isinstance(variation["arms"], Mapping):
        seeds = settled.pop("arms")
        arms = {
            name: {**overlay, **seeds.get(name, {})} if isinstance(overlay, Mapping) else overlay
            for name, overlay in variation["arms"].items()
        }
        settled["arms"] = {name: _own_seeds(name, overlay, problems) for name, overlay in arms.items()}
    elif "arms" in variation:
        settled["arms"] = variation["arms"]
    else:
        settled.pop("arms")
    return {key: settled[key] for key in variation if key in settled}


def _settled(
    data: Mapping[str, Any], around: Mapping[str, Any], typed: Callable[[str], str], problems: list[Problem]
) -> tuple[dict[str, Any], tuple[Reference, ...]]:
    """Data with references resolved, and the references; what leads nowhere goes to ``problems`` and is left out."""
    written, made = references(data), copy(data)
    lost = []
    for reference, value, trouble in resolve(data, around, written):
        if trouble is not None:
            problems.append(Problem(typed(".".join(reference.path)), trouble))
            lost.append(reference.path)
        else:
            put(made, reference.path, value)
    for path in missing(made):
        message = "is ???, which stands for a value you must give, here or as key=value"
        problems.append(Problem(typed(".".join(path)), message))
        lost.append(path)
    for path in reversed(lost):
        drop(made, path)
    return made, tuple(reference for reference in written if reference.path not in lost)


def start_of(arm: Arm) -> Arm | None:
    """The start phase of an arm as something to judge like an arm; None where there is none to run."""
    start = arm.data.get("start")
    if not isinstance(start, Mapping) or not isinstance(start.get("recipe"), str):
        return None
    layers = [Layer(prefix=layer.prefix, data=_world(layer.data)) for layer in arm.layers]
    for layer in arm.layers:
        own = layer.data.get("start")
        if isinstance(own, Mapping):
            phase = {key: value for key, value in own.items() if key in _PHASE_KEYS}
            layers.append(Layer(prefix=f"{layer.prefix}start.", data=phase))
    return Arm(name=arm.name, layers=tuple(layers), data=start_data(arm.data), home="start.")


def start_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the start phase: the trial's world and its limits, everything else the phase's own.

    The world may be changed by an overlay of the phase; a phase of its own comes before it if it names one.
    """
    start = data["start"]
    phase = {key: start[key] for key in _PHASE_KEYS if start.get(key) is not None}
    return merge(_world(data), phase)


def _world(data: Mapping[str, Any]) -> dict[str, Any]:
    world = {key: data[key] for key in ("name", "environment", "policy") if key in data}
    sampling = data.get("sampling")
    if isinstance(sampling, Mapping):  # limits belong to the world, temperatures to the method
        world["sampling"] = {key: sampling[key] for key in ("max_tokens", "max_turns", "concurrent") if key in sampling}
    return world


def _arm(
    name: str, written: list[Layer], around: Mapping[str, Any], registry: Registry, problems: list[Problem]
) -> Arm:
    merged: dict[str, Any] = {}
    for layer in written:
        merged = merge(merged, layer.data)
    arm = Arm(name=name, layers=tuple(written), data=merged)
    layers = []
    recipe, found = _recipe(_word(merged, "recipe", around), arm.typed("recipe"), registry, problems)
    if recipe is not None:
        layers.append(recipe)
    start, path = merged.get("start"), "start"
    while isinstance(start, Mapping):
        chosen = _word(merged, f"{path}.recipe", around)
        phase, phase_found = _recipe(chosen, arm.typed(f"{path}.recipe"), registry, problems)
        found = found and phase_found
        if phase is not None:
            layers.append(Layer(prefix=phase.prefix, data=at(path, phase.data)))
        start, path = start.get("start"), f"{path}.start"
    layers += written
    data: dict[str, Any] = {}
    for layer in layers:
        data = merge(data, layer.data)
    arm = Arm(name=name, layers=tuple(layers), data=data, recipe_found=found)
    data, held = _settled(data, around, arm.typed, problems)
    return replace(arm, data=data, references=held)


def _word(data: Mapping[str, Any], path: str, around: Mapping[str, Any]) -> Any:
    """What stands at a path, a reference resolved; None where there is nothing, or nothing to be found."""
    parts = path.split(".")
    value: Any = data
    for part in parts:
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, str) or "${" not in value:
        return value
    [(_, found, trouble)] = resolve(data, around, [Reference(path=tuple(parts), text=value)])
    return None if trouble else found


def _recipe(name: Any, typed: str, registry: Registry, problems: list[Problem]) -> tuple[Layer | None, bool]:
    if not isinstance(name, str):
        return None, True  # absent, or of a type that the settings model refuses
    known = registry.names("recipe")
    if name not in known:
        problems.append(Problem(typed, registry.unknown("recipe", name)))
        return None, False
    overlay = copy(registry.recipe(name).overlay)
    return Layer(prefix=f"recipe {name!r}: ", data=overlay), True


def _known_keys(layer: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    known = Experiment.model_fields
    for key in layer:
        if key not in known:
            problems.append(
                Problem(key, f"unknown key{_meant(key, known)} Expected one of: {', '.join(sorted(known))}.")
            )
    return {key: value for key, value in layer.items() if key in known}


def _meant(key: str, known: Iterable[str]) -> str:
    """What an unknown key was meant for: the key of a section, written without it, or else the nearest name."""
    inside = [
        f"{section}.{key}"
        for section, field in Experiment.model_fields.items()
        if section in known and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if key in field.annotation.model_fields
    ]
    return f"; did you mean {' or '.join(inside)}?" if inside else did_you_mean(key, known)


def _arm_keys(name: str, overlays: Any, problems: list[Problem]) -> dict[str, Any]:
    overlay = overlays.get(name) if isinstance(overlays, Mapping) else None
    if not isinstance(overlay, Mapping):
        return {}  # absent in this layer, or of a type that the variation model refuses
    allowed = [key for key in Settings.model_fields if key not in SHARED]
    for key in overlay:
        path = f"arms.{name}.{key}"
        if key == OWN:
            continue  # varied, not a setting
        if key in VARIED or key in SHARED:
            problems.append(Problem(path, f"{key} is shared by all arms; write it at the top level of the file"))
        elif key not in allowed:
            expected = ", ".join(sorted(allowed))
            problems.append(Problem(path, f"unknown key{_meant(key, allowed)} Expected one of: {expected}."))
    return {key: value for key, value in overlay.items() if key in allowed}


def _own_seeds(name: str, overlay: Any, problems: list[Problem]) -> Any:
    """An arm as written, without seeds of its own that are none."""
    if not isinstance(overlay, Mapping) or overlay.get(OWN) is None:
        return overlay
    try:
        return {**overlay, OWN: list(_SEEDS.validate_python(overlay[OWN]))}
    except ValidationError:
        message = f"{overlay[OWN]!r} given; expected a list of whole numbers from 0 on, as in [0, 1, 2]"
        message += many_seeds(overlay[OWN])
        problems.append(Problem(f"arms.{name}.{OWN}", message))
        return {key: value for key, value in overlay.items() if key != OWN}


def many_seeds(given: Any) -> str:
    """What a number in place of a list of seeds may have meant; empty where it is none."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 < given <= 100:
        return ""
    listed = ", ".join(map(str, range(given))) if given <= 10 else f"0, 1, ..., {given - 1}"
    return f"; for {given} seeds write [{listed}], for the one seed {given} write [{given}]"


def _only_arm_name(shared: Mapping[str, Any], around: Mapping[str, Any]) -> str:
    for key in ("recipe", "name"):
        word = _word(shared, key, around)
        if isinstance(word, str) and word:
            return word
    return "arm"
