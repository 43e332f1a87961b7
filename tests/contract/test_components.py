"""Every installed component keeps the contract of its role: a new plugin is tested by existing."""

import pytest
from pydantic import ValidationError

from orchestrator.api import load_registry
from orchestrator.contract.component import Role
from orchestrator.contract.types import Split
from orchestrator.testing import check_component

REGISTRY = load_registry()
ONE_OF = {("reward", "function"): "path or live"}  # options of which one is needed, as a validator says
COMPONENTS = [(str(role), name) for role in Role for name in REGISTRY.names(role)]


def test_no_installed_plugin_is_broken():
    assert {name: broken.reason for name, broken in REGISTRY.manager.broken.items()} == {}


@pytest.mark.parametrize(("role", "name"), COMPONENTS, ids=[f"{role}-{name}" for role, name in COMPONENTS])
def test_component_keeps_its_contract(role, name):
    component = REGISTRY.describe(role, name)
    try:
        config = component.config.model_validate({})
    except ValidationError as error:
        missing = sorted({str(detail["loc"][0]) for detail in error.errors() if detail["type"] == "missing"})
        required = ", ".join(missing) or ONE_OF.get((role, name))
        if not required:
            raise
        pytest.skip(f"needs the options {required}; its own tests run the check with them")
    try:
        built = REGISTRY.build(role, name)
    except ModuleNotFoundError as error:
        pytest.skip(f"needs the optional package {error.name}")
    if role == Role.ENVIRONMENT and not any(next(iter(built.tasks(split)), None) for split in Split):
        pytest.skip("gives no tasks: a world of a procedure of its own, not of training")
    nested = config.model_dump() and any(hasattr(value, "use") for value in _values(config))

    check_component(built if nested else component, environment=_home(role, name))


def _values(config):
    for field in type(config).model_fields:
        value = getattr(config, field)
        yield from value if isinstance(value, list | tuple) else [value]


def _home(role, name):
    """An environment of the same plugin that a policy speaks with, if there is one."""
    if role != Role.POLICY:
        return None
    plugin, speaks = REGISTRY.plugin_of(role, name), REGISTRY.describe(role, name).speaks
    for environment in REGISTRY.names("environment"):
        if REGISTRY.plugin_of("environment", environment) == plugin:
            built = REGISTRY.build("environment", environment)
            if speaks in (None, built.speaks):
                return built
    return None
