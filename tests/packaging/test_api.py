"""The public surface: sorted, complete, documented."""

import ast
import dataclasses
import enum
import inspect
import pydoc
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from orchestrator import api


def test_all_is_sorted_and_names_nothing_twice():
    assert api.__all__ == sorted(set(api.__all__))


@pytest.mark.parametrize("name", api.__all__)
def test_every_public_name_resolves_and_is_documented(name):
    value = getattr(api, name)

    if inspect.isclass(value) or inspect.isfunction(value):
        own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
        generated = (own or "").startswith(f"{name}(")  # what dataclass writes when nobody did
        assert own, f"{name} has no docstring"
        assert not generated, f"{name} has no docstring of its own"


def fields_of(value):
    if isinstance(value, enum.EnumMeta):
        return tuple(value.__members__)
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return getattr(value, "_fields", ()) or tuple(getattr(value, "__annotations__", ())) * typing.is_typeddict(value)


DATA = tuple(name for name in api.__all__ if inspect.isclass(getattr(api, name)) and fields_of(getattr(api, name)))


@pytest.mark.parametrize("name", DATA)
def test_every_field_of_public_data_is_explained_by_help(name):
    value = getattr(api, name)
    explained = re.findall(r"^:(?:ivar|cvar) (\w+): \S", inspect.getdoc(value), re.MULTILINE)

    assert set(fields_of(value)) - set(explained) == set()
    assert len(set(explained)) == len(explained)


@pytest.mark.parametrize("name", DATA)
def test_fields_of_public_data_are_explained_in_one_place(name):
    value = getattr(api, name)
    lines = inspect.getsource(value).splitlines()
    declared = re.compile(rf" {{4}}(?:{'|'.join(fields_of(value))})(?:: | = )[^#]*#(?! type:)")

    assert [line for line in lines if declared.match(line)] == []


def test_help_on_the_batch_tells_shape_unit_mask_and_gradient():
    said = pydoc.plain(pydoc.render_doc(api.Batch))

    for word in (
        "[B, T] float32, nats",
        "0 where masked out",
        "Nothing in a batch has a gradient",
        "points of the score",
    ):
        assert word in said


def test_what_the_module_imports_is_public():
    tree = ast.parse(Path(api.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator")
        for alias in node.names
    }

    assert imported == set(api.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = api.nonsense


def test_importing_the_api_does_not_import_torch():
    code = "import sys, orchestrator.api; print('torch' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
