"""The JSON Schema of experiment files, for editors: every key, and the options of every installed component."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from orchestrator.arms import SHARED, VARIED
from orchestrator.component import Component, Role, Use
from orchestrator.experiment import Experiment, Settings
from orchestrator.registry import Registry

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
            component = registry.describe(role, name)
            assert isinstance(component, Component)
            _add_options(definitions, role, name, component.config)
        definitions[f"component.{role}"] = _component(registry, role)
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
    definitions["arm"] = {
        "type": ["object", "null"],
        "properties": {key: properties[key] for key in Settings.model_fields if key not in SHARED},
        "additionalProperties": False,
    }
    properties["arms"] = {"type": "object", "additionalProperties": {"$ref": "#/$defs/arm"}}
    properties["search"] = _SEARCH
    assert set(properties) >= VARIED
    schema["required"] = ["name"]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _nullable(definition: str, nullable: bool) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{definition}"}
    return {"anyOf": [reference, {"type": "null"}]} if nullable else reference


def _component(registry: Registry, role: Role) -> dict[str, Any]:
    """One role: ``use`` names a component, and what else may stand there follows from it."""
    chosen = [
        {
            "if": {"properties": {"use": {"const": name}}, "required": ["use"]},
            "then": {"$ref": f"#/$defs/{role}.{name}"},
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
    for use in _used(model):
        inner[f"{prefix}.{use.__name__}"] = {"$ref": f"#/$defs/component.{use.role}"}
    properties = {"use": {"const": name}, **own.get("properties", {})}
    if role is Role.REWARD:
        properties.setdefault("weight", {"type": "number", "description": "factor of this reward in the score"})
    definitions.update(inner)
    definitions[prefix] = {"type": "object", "properties": properties, "additionalProperties": False}


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
