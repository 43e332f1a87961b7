"""The public names in print: one line each without importing what they need, or all of one."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.cli.options import options_of

DOOR = "orchestrator.api"  # shown, not used: loaded by its name, since the core imports nothing through it


def public_names() -> tuple[str, ...]:
    """Everything a plugin may import from the door, sorted."""
    return tuple(importlib.import_module(DOOR).__all__)


def meanings() -> dict[str, str]:
    """The first sentence of every public name's docstring, read from the sources: nothing heavy is imported."""
    homes = _homes()
    said = {module: _documented(module) for module in sorted(set(homes.values()))}
    return {name: said[homes[name]].get(name, "").partition("\n")[0] for name in public_names()}


def page(name: str) -> str:
    """Signature, docstring and public members of one name; imports what it needs."""
    value = getattr(importlib.import_module(DOOR), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        documentation = _documented(_homes()[name]).get(name, "")
        alias = "" if callable(value) and hasattr(value, "project_name") else f" = {value}"
        return f"{name}{alias}\n\n{_indented(documentation)}".rstrip()
    parts = [_headed(name, value)]
    if inspect.isclass(value):
        parts += _keys(value)
        parts += [_headed(f"{name}.{member}", found) for member, found in _members(value)]
    return "\n\n".join(parts)


def _keys(kind: type) -> Iterator[str]:
    """What may be written in a model, a line each."""
    if issubclass(kind, BaseModel) and kind.model_fields:
        yield "\n".join(
            f"  {option.path}: {', '.join(filter(None, (option.type, option.bounds, option.shown_with_name)))}"
            + (f"; {option.meaning}" if option.meaning else "")
            for option in options_of(kind)
        )


def _headed(name: str, value: Any) -> str:
    documentation = inspect.getdoc(value) or ""
    return f"{_signature(name, value)}\n{_indented(documentation)}".rstrip()


def _signature(name: str, value: Any) -> str:
    if isinstance(value, property):
        returned = inspect.signature(value.fget).return_annotation if value.fget else inspect.Signature.empty
        return f"{name}: {_typed(returned)}"
    if inspect.isclass(value):
        shown = dataclasses.is_dataclass(value) or hasattr(value, "_fields") or "__init__" in vars(value)
        if not shown or getattr(value, "_is_protocol", False):
            bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
            return f"class {name}({bases})" if bases else f"class {name}"
    signature = inspect.signature(value)
    wanted = [one for one in signature.parameters.values() if one.name not in ("self", "cls")]
    parameters = [_parameter(value, one) for one in wanted]
    stars = [one.kind is one.KEYWORD_ONLY for one in wanted]
    if True in stars and not any(one.kind is one.VAR_POSITIONAL for one in wanted):
        parameters.insert(stars.index(True), "*")
    returned = signature.return_annotation
    arrow = "" if returned is signature.empty or inspect.isclass(value) else f" -> {_typed(returned)}"
    line = f"{name}({', '.join(parameters)}){arrow}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){arrow}"


def _parameter(owner: Any, parameter: inspect.Parameter) -> str:
    stars = "*" * (parameter.kind is parameter.VAR_POSITIONAL) + "**" * (parameter.kind is parameter.VAR_KEYWORD)
    typed = "" if parameter.annotation is parameter.empty else f": {_typed(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return f"{stars}{parameter.name}{typed}"
    default = parameter.default
    if dataclasses.is_dataclass(owner):
        factory = {field.name: field.default_factory for field in dataclasses.fields(owner)}[parameter.name]
        default = default if factory is dataclasses.MISSING else factory()
    shown = f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else repr(default)
    return f"{parameter.name}{typed} = {shown}"


def _typed(annotation: Any) -> str:
    annotation = getattr(annotation, "__forward_arg__", annotation)
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class of ours offers: its own methods and properties, and those of our classes it derives from."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("orchestrator."):
            found |= vars(base)
    for name, value in found.items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else getattr(value, "func", value)
        function = plain.fget if isinstance(plain, property) else plain
        ours = inspect.isfunction(function) and function.__module__.startswith("orchestrator.")
        if ours and inspect.getdoc(plain) and (name == "__call__" or not name.startswith("_")):
            yield name, plain


def _homes() -> dict[str, str]:
    """The module each public name is defined in, as the door's own imports say."""
    tree = ast.parse(Path(str(importlib.import_module(DOOR).__file__)).read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _documented(module: str) -> Mapping[str, str]:
    """Docstrings of a module's classes, functions and documented constants, by name; the module is not imported."""
    spec = importlib.util.find_spec(module)
    tree = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
    said: dict[str, str] = {}
    for node, below in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            said[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(below, ast.Expr):
            text = below.value.value if isinstance(below.value, ast.Constant) else None
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name) and isinstance(text, str):
                    said[target.id] = inspect.cleandoc(text)
    return said


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
