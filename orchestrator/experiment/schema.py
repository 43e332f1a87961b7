"""The JSON Schema of experiment files, for editors: every key, and the options of every installed component."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator.contract.component import Role, Use, UseReward
from orchestrator.contract.settings import Experiment, Settings
from orchestrator.experiment.arms import OWN, SHARED, VARIED
from orchestrator.plugging.registry import Registry

_ROLE_OF_KEY = {
    "environment": Role.ENVIRONMENT,
    "policy": Role.POLICY,
    "sampler": Role.SAMPLER,
    "advantage": Role.ADVANTAGE,
    "objective": Role.OBJECTIVE,
}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
_SEARCH = {
    "type": "object",
    "description": "dotted path to a distribution, as in optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}",
    "additionalProperties": {
        "type": "object",
        "properties": {
            **{word: {**_NUMBERS, "minItems": 2, "maxItems": 2} for word in ("uniform", "loguniform", "int", "logint")},
            "quniform": {**_NUMBERS, "minItems": 3, "maxItems": 3},
            **{word: {"type": "array", "minItems": 1} for word in ("choice", "grid", "values")},
        },
        "additionalProperties": {"type": "object"},
    },
}


def experiment_schema(registry: Registry) -> dict[str, Any]:
    """Describe experiment files; a component's options follow from its ``use``, recipes are listed by name.

    A component without ``use`` only changes options of one named elsewhere (by a recipe, or at the top of the file), so
    that any option is allowed there.
    """
    schema = Experiment.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for role in Role:
        for name in registry.names(role):
            _add_options(definitions, role, name, registry.component(role, name).config)
        definitions[f"component.{role}"] = _component(registry, role, str(role))
    for role in Role:
        for name in registry.names(role):
            _add_uses(definitions, registry, f"{role}.{name}", registry.component(role, name).config)
    properties = schema["properties"]
    for key, role in _ROLE_OF_KEY.items():
        properties[key] = _nullable(f"component.{role}", key != "environment")
    properties["rewards"] = {
        "type": "array",
        "items": {"$ref": "#/$defs/component.reward"},
        "description": properties["rewards"].get("description", ""),
    }
    recipes = {"enum": [*registry.names("recipe"), None]}
    properties["recipe"] = {**recipes, "description": properties["recipe"]["description"]}
    start = definitions["Start"]["properties"]
    start["recipe"] = recipes
    for key, role in _ROLE_OF_KEY.items():
        if key in start:
            start[key] = _nullable(f"component.{role}", True)
    own = {key: properties[key] for key in Settings.model_fields if key not in SHARED}
    listed = next(kind for kind in properties[OWN]["oneOf"] if kind.get("type") == "array")
    definitions["arm"] = {
        "type": ["object", "null"],
        "properties": {**own, OWN: {**listed, "description": "the arm's own, in place of those of all arms"}},
        "additionalProperties": False,
    }
    properties["arms"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/arm"}}
    properties["search"] = _SEARCH
    tune = definitions["Tune"]["properties"]
    for role in (Role.SEARCHER, Role.SCHEDULER):
        bare = [*registry.names(role), *(["none"] if role is Role.SCHEDULER else [])]
        tune[role] = {
            "anyOf": [{"enum": bare}, {"$ref": f"#/$defs/component.{role}", "required": ["use"]}],
            "description": tune[role]["description"],
        }
    assert set(properties) >= VARIED
    schema["required"] = ["name"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _nullable(definition: str, nullable: bool) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{definition}"}
    return {"anyOf": [reference, {"type": "null"}]} if nullable else reference


def _component(registry: Registry, role: Role, prefix: str) -> dict[str, Any]:
    """One role: ``use`` names a component, and what else may stand there follows from it.

    :param prefix: of the definitions of the components' options
    """
    chosen = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": {"$ref": f"#/$defs/{prefix}.{name}"},
        }
        for name in registry.names(role)
    ]
    return {
        "type": "object",
        "properties": {"use": {"enum": list(registry.names(role)), "description": f"which {role}"}},
        "allOf": chosen,
    }


def _add_options(definitions: dict[str, Any], role: Role, name: str, model: type[BaseModel]) -> None:
    """Add the options of one component under ``role.name``; models inside them get names of their own."""
    prefix = f"{role}.{name}"
    own = model.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
    inner = {f"{prefix}.{key}": value for key, value in own.pop("$defs", {}).items()}
    properties = {"use": {"const": name}, **own.get("properties", {})}
    if role is Role.REWARD:
        properties.setdefault("weight", {"type": "number", "description": "factor of this reward in the score"})
    definitions.update(inner)
    definitions[prefix] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": own.get("additionalProperties", False),
    }


def _add_uses(definitions: dict[str, Any], registry: Registry, prefix: str, model: type[BaseModel]) -> None:
    """Add the components nested in a component's options, with what else its options ask beside ``use`` there."""
    for use in _used(model):
        own = use.model_json_schema(ref_template=f"#/$defs/{prefix}.{{model}}")
        definitions.update({f"{prefix}.{key}": value for key, value in own.pop("$defs", {}).items()})
        place = f"{prefix}.{use.__name__}"
        beside = {key: value for key, value in own["properties"].items() if key != "use"}
        if not beside or set(beside) == set(UseReward.model_fields) - {"use"}:  # every reward takes a weight
            definitions[place] = {"$ref": f"#/$defs/component.{use.role}"}
            continue
        for name in registry.names(use.role):
            options = definitions[f"{use.role}.{name}"]
            definitions[f"{place}.{name}"] = {**options, "properties": {**options["properties"], **beside}}
        nested = _component(registry, use.role, place)
        nested["properties"] |= beside
        definitions[place] = nested | {"required": own.get("required", [])}


def _used(model: type[BaseModel]) -> set[type[Use]]:
    """Kinds of components nested in an options model."""
    found: set[type[Use]] = set()

    def look(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Use):
            found.add(annotation)
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for field in annotation.model_fields.values():
                look(field.annotation)
        for argument in getattr(annotation, "__args__", ()):
            look(argument)

    look(model)
    return found
