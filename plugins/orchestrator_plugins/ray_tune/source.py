"""Reads the source of a class that an experiment file names, without importing it: a plan runs no code of a file's choice."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DEEP = 8  # re-exports followed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A class as its source has it.

    :ivar file: where it stands
    :ivar module: that module's dotted name
    :ivar options: keyword arguments of its constructor; None: unknown, or any
    :ivar needed: those of them without a default
    """

    file: Path
    module: str
    options: tuple[str, ...] | None
    needed: tuple[str, ...]


class SourceError(ValueError):
    """The class cannot be found; says why."""

    def __init__(self, message: str, known: tuple[str, ...] = ()):
        super().__init__(message)
        self.known = known


def locate(module: str) -> Path:
    """The file of a module.

    :raises SourceError: there is none
    """
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise SourceError(f"no package {top!r} is installed; pip install it, or put its folder on PYTHONPATH")
    if not rest:
        if spec.origin is None:
            raise SourceError(f"{top} has no source file")
        return Path(spec.origin)
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *rest)
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    raise SourceError(f"{top} is installed, and has no module {module!r}")


def find(module: str, name: str, deep: int = _DEEP) -> Found:
    """A class in a module, or where the module has it from.

    :raises SourceError: there is none
    """
    file = locate(module)
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    known: list[str] = []
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef):
            if node.name == name:
                options, needed = _arguments(node)
                return Found(file=file, module=module, options=options, needed=needed)
            known.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and deep:
                    return find(_absolute(node, module, file), alias.name, deep - 1)
                known.append(alias.asname or alias.name)
    raise SourceError(f"{file} defines no class {name!r}", tuple(known))


def lacking(found: Found, *, also_guarded: bool) -> list[str]:
    """Packages that the class's module imports and that are not installed.

    :param also_guarded: those inside ``try`` too, which a module may do without
    """
    tree = ast.parse(found.file.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in _statements(tree, guarded=also_guarded):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.append(node.module)
    tops = dict.fromkeys(name.partition(".")[0] for name in names)
    return [top for top in tops if importlib.util.find_spec(top) is None]


def _statements(tree: ast.Module, *, guarded: bool = True) -> Iterator[ast.stmt]:
    for node in tree.body:
        yield node
        if guarded and isinstance(node, ast.Try):
            yield from node.body


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _arguments(node: ast.ClassDef) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            taken = inner.args
            plain = [argument.arg for argument in (*taken.posonlyargs, *taken.args)][1:]
            needed = plain[: len(plain) - len(taken.defaults)]
            for argument, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True):
                plain.append(argument.arg)
                needed += [argument.arg] if default is None else []
            return (None if taken.kwarg else tuple(plain)), tuple(needed)
    return None, ()
