"""Lays an experiment out by arm: recipe under file under arm under command line, remembering who wrote what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.contract.component import RECIPE_KEYS
from orchestrator.contract.settings import Experiment, Seeds, Settings, Variation
from orchestrator.errors import Problem, did_you_mean
from orchestrator.experiment.overlay import at, copy, depth_reached, merge
from orchestrator.experiment.search import flatten

if TYPE_CHECKING:
    from orchestrator.experiment.files import RawExperiment
    from orchestrator.plugging.registry import Registry

VARIED = frozenset(Variation.model_fields)
OWN = "seeds"  # what is varied and may yet be an arm's own
_SEEDS = TypeAdapter(Seeds)
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


def lay_out(raw: RawExperiment, registry: Registry, problems: list[Problem]) -> Layout:
    """Merge every arm of an experiment; unknown keys and recipes go to ``problems`` and are left out."""
    file, overrides = _known_keys(raw.file, problems), _known_keys(raw.overrides, problems)
    variation = {
        key: merge(file[key], overrides[key]) if key in file and key in overrides else copy({**file, **overrides}[key])
        for key in Variation.model_fields
        if key in file or key in overrides
    }
    if isinstance(variation.get("search"), Mapping):
        layers = [layer["search"] for layer in (file, overrides) if isinstance(layer.get("search"), Mapping)]
        variation["search"] = {path: spec for layer in layers for path, spec in flatten(layer).items()}
    top = [
        Layer(prefix="", data={key: value for key, value in layer.items() if key not in VARIED})
        for layer in (file, overrides)
    ]
    shared = merge(top[0].data, top[1].data)
    if isinstance(variation.get("arms"), Mapping):
        variation["arms"] = {name: {} if overlay is None else overlay for name, overlay in variation["arms"].items()}
        variation["arms"] = {name: _own_seeds(name, overlay, problems) for name, overlay in variation["arms"].items()}
    overlays = variation.get("arms")
    if not isinstance(overlays, Mapping) or not overlays:
        arm = _arm(_only_arm_name(shared), [top[0], top[1]], registry, problems)
        return Layout(arms=(arm,), variation=variation, top=shared)
    arms = []
    for name in overlays:
        own = [
            Layer(prefix=f"arms.{name}.", data=_arm_keys(name, layer.get("arms"), problems))
            for layer in (file, overrides)
        ]
        arms.append(_arm(name, [top[0], own[0], top[1], own[1]], registry, problems))
    return Layout(arms=tuple(arms), variation=variation, top=shared)


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


def _arm(name: str, written: list[Layer], registry: Registry, problems: list[Problem]) -> Arm:
    merged: dict[str, Any] = {}
    for layer in written:
        merged = merge(merged, layer.data)
    arm = Arm(name=name, layers=tuple(written), data=merged)
    layers = []
    recipe, found = _recipe(merged.get("recipe"), arm.typed("recipe"), registry, problems)
    if recipe is not None:
        layers.append(recipe)
    start, path = merged.get("start"), "start"
    while isinstance(start, Mapping):
        phase, phase_found = _recipe(start.get("recipe"), arm.typed(f"{path}.recipe"), registry, problems)
        found = found and phase_found
        if phase is not None:
            layers.append(Layer(prefix=phase.prefix, data=at(path, phase.data)))
        start, path = start.get("start"), f"{path}.start"
    layers += written
    data: dict[str, Any] = {}
    for layer in layers:
        data = merge(data, layer.data)
    return Arm(name=name, layers=tuple(layers), data=data, recipe_found=found)


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
                Problem(key, f"unknown key{did_you_mean(key, known)} Expected one of: {', '.join(sorted(known))}.")
            )
    return {key: value for key, value in layer.items() if key in known}


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
            problems.append(Problem(path, f"unknown key{did_you_mean(key, allowed)} Expected one of: {expected}."))
    return {key: value for key, value in overlay.items() if key in allowed}


def _own_seeds(name: str, overlay: Any, problems: list[Problem]) -> Any:
    """An arm as written, without seeds of its own that are none."""
    if not isinstance(overlay, Mapping) or overlay.get(OWN) is None:
        return overlay
    try:
        return {**overlay, OWN: list(_SEEDS.validate_python(overlay[OWN]))}
    except ValidationError:
        message = f"{overlay[OWN]!r} given; expected a list of whole numbers from 0 on, as in [0, 1, 2]"
        problems.append(Problem(f"arms.{name}.{OWN}", message))
        return {key: value for key, value in overlay.items() if key != OWN}


def _only_arm_name(shared: Mapping[str, Any]) -> str:
    for key in ("recipe", "name"):
        if isinstance(shared.get(key), str) and shared[key]:
            return shared[key]
    return "arm"
