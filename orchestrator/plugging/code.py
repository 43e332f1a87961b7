"""Python code that an experiment names, found and read without importing it, nor a package it lies in."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.contract.strict import NamesCode

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCode:
    """A module or file that an experiment names; ``problem`` says why it cannot be used.

    :ivar module: its name, or the file's absolute path
    """

    module: str
    digest: str = ""
    problem: str | None = None


def find_code(marker: NamesCode, text: str) -> NamedCode:
    """Find the module that a text names, take its digest, and see that a function is there."""
    if marker.kind == "file":
        return _in_file(text)
    module, _, member = text.partition(":")
    if not _NAME.fullmatch(module) or len(module) > 200:
        return NamedCode(
            module=module, problem=f"{module[:80]!r} names no Python module; expected words joined by dots"
        )
    found = source_of(module)
    if found is None:
        return NamedCode(module=module, problem=f"no Python module {module!r} to import; install it, or set PYTHONPATH")
    problem = _trouble(found, member) if marker.kind == "function" and found.suffix == ".py" else None
    return NamedCode(module=module, digest=_digest(found), problem=problem)


def code_now(before: Mapping[str, str]) -> dict[str, str]:
    """Digests of the same modules as they lie there now."""
    found = {module: source_of(module) for module in before}
    return {
        module: ABSENT if path is None else _digest_with_neighbours(path) if is_file(module) else _digest(path)
        for module, path in found.items()
    }


def is_file(module: str) -> bool:
    """Whether code is named by its file, not as a module."""
    return Path(module).is_absolute()


def source_of(module: str) -> Path | None:
    """The file a module would be loaded from; None where there is none. Only its top-level package is looked up."""
    if is_file(module):
        return Path(module) if Path(module).is_file() else None
    top, *inside = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):  # such as __main__, which has none
        return None
    if spec is None:
        return None
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    if not inside:
        return Path(spec.origin) if spec.has_location and spec.origin else next(iter(folders), None)
    for folder in folders:
        place = folder.joinpath(*inside)
        for file in (
            place / "__init__.py",
            place.with_name(f"{place.name}.py"),
            *place.parent.glob(f"{place.name}.*.so"),
        ):
            if file.is_file():
                return file
        if place.is_dir():
            return place
    return None


def _digest(path: Path) -> str:
    """Of a module's file; of a package's every source file."""
    folder = path if path.is_dir() else path.parent if path.name == "__init__.py" else None
    files = [path] if folder is None else sorted(folder.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        name = file.name if folder is None else file.relative_to(folder).as_posix()
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _in_file(text: str) -> NamedCode:
    name, _, member = text.rpartition(":")
    path = Path(name).expanduser().absolute()
    if path.suffix != ".py" or not member.isidentifier():
        return NamedCode(module=name, problem=f"{text[:80]!r} names no function of a file; expected FILE.py:FUNCTION")
    if not path.is_file():
        return NamedCode(
            module=str(path), problem=f"no file {str(path)!r}; a path begins where the command runs, {Path.cwd()}"
        )
    return NamedCode(module=str(path), digest=_digest_with_neighbours(path), problem=_trouble(path, member))


def _digest_with_neighbours(path: Path) -> str:
    """Of a file and of what lies beside it that it imports, and that imports in turn."""
    digest = hashlib.sha256()
    for file in sorted(_with_neighbours(path)):
        digest.update(
            file.relative_to(path.parent).as_posix().encode("utf-8", "surrogateescape")
            + b"\0"
            + file.read_bytes()
            + b"\0"
        )
    return digest.hexdigest()[:16]


def _with_neighbours(path: Path) -> set[Path]:
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (SyntaxError, ValueError, RecursionError):  # importing it will say so
            continue
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        for top in {name.partition(".")[0] for name in names}:
            beside = path.parent / top
            if beside.with_name(f"{top}.py").is_file():
                waiting.append(beside.with_name(f"{top}.py"))
            elif beside.is_dir():
                waiting += sorted(beside.rglob("*.py"))
    return found


def _trouble(path: Path, member: str) -> str | None:
    """Why a source file has no such function, as far as its text says."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError, RecursionError) as error:
        return f"{path} is no Python: {error}"
    defined: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            defined.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            defined |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        else:  # assignments, and what stands in an if or a try
            defined |= {one.id for one in ast.walk(statement) if isinstance(one, ast.Name)}
            defined |= {one.name for one in ast.walk(statement) if isinstance(one, ast.FunctionDef | ast.ClassDef)}
            imports = [one for one in ast.walk(statement) if isinstance(one, ast.Import | ast.ImportFrom)]
            defined |= {(alias.asname or alias.name).partition(".")[0] for one in imports for alias in one.names}
    if member in defined or "*" in defined or "__getattr__" in defined:
        return None
    return f"{path} defines no {member!r}"
