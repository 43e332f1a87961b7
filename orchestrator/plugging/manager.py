"""Finds plugins, refuses those that would fail later, and calls their hooks with blame."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pluggy

from orchestrator import __version__
from orchestrator.contract import hookspecs
from orchestrator.contract.component import PluginInfo
from orchestrator.contract.markers import ENTRY_POINT_GROUP, PROJECT
from orchestrator.errors import PluginContractError, accuse, blame, describe, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenPlugin:
    """A plugin that could not be used, and why."""

    info: PluginInfo
    reason: str


class PluginManager:
    """pluggy, plus what it lets through: every check happens before anything registers."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._infos: dict[str, PluginInfo] = {}
        self._configured: dict[str, Any] | None = None
        self.broken: dict[str, BrokenPlugin] = {}
        self.failures: dict[str, int] = {}  # observers that raised, by plugin

    @property
    def plugins(self) -> dict[str, PluginInfo]:
        """Registered plugins by name."""
        return dict(self._infos)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """Every hook of the specification, in the order of the file."""
        return tuple(name for name in vars(hookspecs) if _is_spec(name))

    def discover(self, only: Iterable[str] | None = None, *, strict: bool = True) -> None:
        """Load the plugins of the entry-point group.

        :param only: names of the plugins to load; None: all that are installed
        :param strict: raise for a plugin that breaks the contract; otherwise list it in ``broken``
        :raises PluginContractError: naming every plugin that breaks the contract, before any of them registers

        A plugin that does not import is listed in ``broken``: an experiment that uses it stops there.
        """
        rows = [(entry, _info(entry)) for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)]
        rows.sort(key=lambda row: row[1].name)
        if only is not None:
            wanted = set(only)
            missing = wanted - {info.name for _, info in rows}
            if missing:
                installed = sorted({info.name for _, info in rows})
                raise PluginContractError(
                    "\n".join(
                        f"no plugin {name!r} is installed{did_you_mean(name, installed)} Installed: "
                        f"{', '.join(installed) or 'none'}"
                        for name in sorted(missing)
                    )
                )
            rows = [row for row in rows if row[1].name in wanted]
        problems: dict[str, tuple[PluginInfo, list[str]]] = {}
        loaded: list[tuple[Any, PluginInfo]] = []
        for name, twins in _by_name(rows).items():
            entry, info = twins[0]
            if len({other.distribution for _, other in twins}) > 1:
                sources = " and ".join(sorted(f"{other.distribution} {other.version}" for _, other in twins))
                remedy = (
                    f"{sources} both register the entry point {name!r}; uninstall one, or rename its row under "
                    f'[project.entry-points."{ENTRY_POINT_GROUP}"]'
                )
                problems[name] = info, [remedy]
                continue
            try:
                plugin = entry.load()
            except (Exception, SystemExit) as error:  # whatever it is, the other plugins are fine
                self.broken[name] = BrokenPlugin(info=info, reason=describe(error))
                continue
            found = contract_problems(plugin)
            if found:
                problems[name] = info, found
            else:
                loaded.append((plugin, info))
        if problems and strict:
            raise PluginContractError(_refusal(problems.values()))
        for name, (info, found) in problems.items():
            self.broken[name] = BrokenPlugin(info=info, reason="; ".join(found))
        for plugin, info in loaded:
            self._add(plugin, info)

    def mentioning(self, hook: str) -> tuple[str, ...]:
        """Names of installed plugins whose module mentions a hook in its source; nothing is imported.

        Quick, and almost the plugins that implement it: one that gets the hook from elsewhere unnamed is missed.
        """
        found = []
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
            source = _source(entry.value.partition(":")[0].strip())
            if source is not None and hook.encode() in source.read_bytes():
                found.append(entry.name)
        return tuple(sorted(set(found)))

    def register(self, plugin: Any, name: str | None = None) -> PluginInfo:
        """Register one module or object, with the same checks; for tests and embedding.

        :raises PluginContractError: when it breaks the contract or the name is taken
        """
        module = _home(plugin)
        name = name or (module.rpartition(".")[2] if isinstance(plugin, ModuleType) else type(plugin).__name__)
        info = PluginInfo(name=name, module=module, distribution="unpackaged", version="0", digest=_digest(module))
        problems = contract_problems(plugin)
        if name in self._infos:
            problems.append(f"a plugin named {name!r} is already registered: {self._infos[name]}")
        if problems:
            raise PluginContractError(_refusal([(info, problems)]))
        self._add(plugin, info)
        return info

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Call the historic hook ``configure``; plugins registered later get it too. Equal settings are sent once."""
        if self._configured == settings:
            return
        self._configured = dict(settings)
        with self._blaming("configure"):
            self._pluggy.hook.configure.call_historic(kwargs={"settings": settings})

    def call_each(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginInfo, Any]]:
        """Call a collecting hook plugin by plugin and yield each result, generators consumed, with blame."""
        for implementation in self._implementations(hook):
            yield self._infos[implementation.plugin_name], self._collect(implementation, hook, arguments)

    def try_each(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginInfo, list[Any] | Exception]]:
        """As :meth:`call_each`, with the error in place of what a plugin that raises would have given."""
        for implementation in self._implementations(hook):
            try:
                collected: list[Any] | Exception = self._collect(implementation, hook, arguments)
            except Exception as error:
                collected = error
            yield self._infos[implementation.plugin_name], collected

    def notify(self, hook: str, **arguments: Any) -> list[tuple[PluginInfo, Exception]]:
        """Call an observing hook; an observer that raises does not stop the others.

        :returns: the errors with the plugin that raised each, for the caller to log and count
        """
        errors = []
        for implementation in self._implementations(hook):
            info = self._infos[implementation.plugin_name]
            try:
                with blame(str(info), where=f"hook {hook!r}"):
                    implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:
                self.failures[info.name] = self.failures.get(info.name, 0) + 1
                errors.append((info, error))
        return errors

    def first(self, hook: str, **arguments: Any) -> Any:
        """Call a ``run_*`` hook; pluggy's order and wrappers apply.

        An error that no boundary further in attributed is blamed on the plugin whose code is innermost in the traceback:
        in this hook if it raised in its implementation of it, otherwise in the code that raised.
        """
        with self._blaming(hook):
            return getattr(self._pluggy.hook, hook)(**arguments)

    def hooks_of(self, plugin: str) -> tuple[str, ...]:
        """The hooks a registered plugin implements, in the order of the specification."""
        return tuple(
            hook for hook in self.hook_names if any(i.plugin_name == plugin for i in self._implementations(hook))
        )

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook; the core's own defaults do not count."""
        return bool(self._implementations(hook))

    def add_default(self, implementation: ModuleType) -> None:
        """Register the core's own implementation of ``run_*`` hooks; it comes last and names no plugin."""
        if not self._pluggy.is_registered(implementation):
            self._pluggy.register(implementation, name=f"core:{implementation.__name__}")

    def fingerprint(self) -> dict[str, str]:
        """What drivers and workers compare: each plugin's distribution, version and digest of its sources."""
        return {name: f"{i.distribution} {i.version} {i.digest}" for name, i in sorted(self._infos.items())}

    def _add(self, plugin: Any, info: PluginInfo) -> None:
        self._infos[info.name] = info
        with blame(str(info), where="hook 'configure'"):  # historic: registering calls it, this plugin's alone
            self._pluggy.register(plugin, name=info.name)

    @contextmanager
    def _blaming(self, hook: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            accuse(error, self._origin(error, hook))
            raise

    def _collect(self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, Any]) -> list[Any]:
        info = self._infos[implementation.plugin_name]
        with blame(str(info), where=f"hook {hook!r}"):
            result = implementation.function(*(arguments[name] for name in implementation.argnames))
            if result is None:
                return []
            if isinstance(result, str | bytes | Mapping) or not isinstance(result, Iterable):
                raise PluginContractError(
                    f"plugin {info}: hook {hook!r} returned {type(result).__name__} {result!r}; return a list"
                )
            return list(result)

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        found = getattr(self._pluggy.hook, hook).get_hookimpls()
        return [i for i in reversed(found) if i.plugin_name in self._infos]

    def _origin(self, error: Exception, hook: str) -> str | None:
        """The plugin whose code is innermost in the traceback of a hook that pluggy called, and where; None: no plugin's."""
        whom, inside, in_hook = None, None, False  # inside: the plugin entered last, and not yet left for the core
        for frame, _ in traceback.walk_tb(error.__traceback__):
            module = frame.f_globals.get("__name__", "")
            if module.startswith("pluggy."):
                whom = inside = None  # what stands outside of its call only wraps the hook
            elif module.startswith("orchestrator."):
                inside = None
            info = self._plugin_of(module)
            if info is None:
                continue
            if info != inside:
                in_hook = frame.f_code in self._codes(hook, info)
            inside = info
            whom = f"{info} in " + (f"hook {hook!r}" if in_hook else f"{module}.{frame.f_code.co_qualname}")
        return whom

    def _plugin_of(self, module: str) -> PluginInfo | None:
        found = [info for info in self._infos.values() if f"{module}.".startswith(f"{info.module}.")]
        return max(found, key=lambda info: len(info.module), default=None)

    def _codes(self, hook: str, info: PluginInfo) -> set[CodeType]:
        """The code of a plugin's implementations of a hook, in and out of its decorators."""
        functions = [i.function for i in self._implementations(hook) if i.plugin_name == info.name]
        return {f.__code__ for outer in functions for f in (outer, inspect.unwrap(outer)) if hasattr(f, "__code__")}


def contract_problems(plugin: Any) -> list[str]:
    """Say everything that would make pluggy fail later, or worse, stay silent.

    Unknown hooks; ``async``; keyword-only, defaulted or starred parameters; unknown arguments; a class in place of
    an instance. Empty when the plugin may register.
    """
    if inspect.isclass(plugin):
        return [
            f"the entry point gives the class {plugin.__name__}; point it at a module, or at an instance: {plugin.__name__}()"
        ]
    known = [name for name in vars(hookspecs) if _is_spec(name)]
    problems, implemented = [], 0
    for name in dir(plugin):
        function = inspect.getattr_static(plugin, name, None)
        function = getattr(function, "__func__", function)
        options = getattr(function, f"{PROJECT}_impl", None)
        if not isinstance(options, dict):
            if inspect.isfunction(function) and name in known and function.__module__ == _home(plugin):
                problems.append(f"{name} has the name of a hook but no @hookimpl; add it")
            continue
        implemented += 1
        hook = options.get("specname") or name
        if hook in known:
            problems += _signature_problems(hook, getattr(plugin, name), options)
        elif not options.get("optionalhook"):
            near = difflib.get_close_matches(hook, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"unknown hook {hook!r}{hint} See: orchestrator plugins hooks")
    if not implemented and not problems:
        problems.append("it implements no hook; mark functions with @hookimpl from orchestrator.api")
    return problems


def _signature_problems(hook: str, function: Any, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with one implementation; ``function`` as it will be called, bound where it is a method."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return [f"hook {hook!r} is async and would never be awaited; make it a plain function"]
    if not inspect.isroutine(function):
        return [f"hook {hook!r} is not a function"]
    wraps = options.get("wrapper") or options.get("hookwrapper")
    if wraps and not hook.startswith("run_"):
        return [f"hook {hook!r} takes no wrappers, only hooks named run_ do; implement it plainly"]
    if inspect.isgeneratorfunction(function) and not wraps and not hook.startswith(("provide_", "check_")):
        return [f"hook {hook!r} is a generator and its body would never run; drop the `yield`"]
    problems = []
    accepted = list(inspect.signature(getattr(hookspecs, hook)).parameters)
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY:
            problems.append(
                f"hook {hook!r}: parameter {parameter.name!r} is keyword-only; hooks are called by position, drop the `*`"
            )
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            problems.append(
                f"hook {hook!r}: starred parameter {parameter.name!r} stays empty; name the arguments you want: {accepted}"
            )
        elif parameter.default is not parameter.empty:
            problems.append(
                f"hook {hook!r}: parameter {parameter.name!r} has a default and would not be passed; drop the default"
            )
        elif parameter.name not in accepted:
            near = difflib.get_close_matches(parameter.name, accepted, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(f"hook {hook!r} has no argument {parameter.name!r}{hint} It has: {accepted}")
    return problems


def _home(plugin: Any) -> str:
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    return plugin.__module__ if inspect.isclass(plugin) else type(plugin).__module__


def _is_spec(name: str) -> bool:
    return hasattr(getattr(hookspecs, name), f"{PROJECT}_spec")


def _by_name(
    rows: list[tuple[metadata.EntryPoint, PluginInfo]],
) -> dict[str, list[tuple[metadata.EntryPoint, PluginInfo]]]:
    grouped: dict[str, list[tuple[metadata.EntryPoint, PluginInfo]]] = {}
    for row in rows:
        grouped.setdefault(row[1].name, []).append(row)
    return grouped


def _refusal(problems: Iterable[tuple[PluginInfo, list[str]]]) -> str:
    return "\n".join(f"plugin {info}: {problem}" for info, found in problems for problem in found)


def _info(entry: metadata.EntryPoint) -> PluginInfo:
    module = entry.value.partition(":")[0].strip()
    name, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown", "0")
    return PluginInfo(name=entry.name, module=module, distribution=name, version=version, digest=_digest(module))


def _digest(module: str) -> str:
    """Hash of the module's source files, found without importing it."""
    origin = _source(module)
    if origin is None:
        return ""
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256(__version__.encode())
    for file in files:
        name = file.relative_to(origin.parent).as_posix()
        digest.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _source(module: str) -> Path | None:
    """The file a module would be loaded from; None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a parent package that does not import; loading the plugin reports it
        return None
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    return Path(spec.origin)
