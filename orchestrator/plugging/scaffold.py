"""Makes a plugin project: a distribution that installs, is found, and passes its own tests as it stands."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Collection, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import NamedTuple

from orchestrator import __version__
from orchestrator.contract.component import Role
from orchestrator.errors import ConfigError, Problem, did_you_mean


class _Kind(NamedTuple):
    """What differs from role to role beside the templates."""

    hook: str
    summary: str
    options: tuple[tuple[str, str, str], ...]  # name, default, meaning
    usage: str


_KINDS = {
    Role.ENVIRONMENT: _Kind(
        "provide_environments",
        "asks for the number that comes next",
        (("seed", "0", "of the tasks"), ("largest", "9", "largest number asked about")),
        "environment: {use: $name, largest: 9}",
    ),
    Role.POLICY: _Kind(
        "provide_policies",
        "a linear policy over features",
        (("scale", "0.01", "standard deviation of the first weights"),),
        "policy: {use: $name}",
    ),
    Role.SAMPLER: _Kind(
        "provide_samplers",
        "asks again for rollouts of tasks nobody solved",
        (("count", "4", "rollouts of every task"), ("retries", "4", "further rollouts of unsolved tasks")),
        "sampler: {use: $name, count: 4}",
    ),
    Role.REWARD: _Kind(
        "provide_rewards",
        "prefers short answers",
        (("longest", "200", "characters of an answer that are free"),),
        "rewards: [{use: $name, weight: 0.1}]",
    ),
    Role.ADVANTAGE: _Kind(
        "provide_advantage_estimators",
        "reward minus the mean of the batch",
        (("scale", "1.0", "factor of every advantage"),),
        "recipe: grpo\nadvantage: {use: $name, scale: 2.0}",
    ),
    Role.OBJECTIVE: _Kind(
        "provide_objectives",
        "log-probability times advantage, with an entropy bonus",
        (
            ("entropy_weight", "0.0", "weight of the entropy bonus"),
            ("reduction", "token_mean", "how per-token losses become a number"),
        ),
        "recipe: grpo\nobjective: {use: $name, entropy_weight: 0.01}",
    ),
    Role.SEARCHER: _Kind(
        "provide_searchers",
        "changes some options of the best configuration so far",
        (
            ("first", "3", "configurations drawn at random before the best is changed"),
            ("keep", "0.5", "chance of each option to stay as it is in the best"),
        ),
        "search: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}\ntune: {searcher: {use: $name, keep: 0.7}}",
    ),
    Role.SCHEDULER: _Kind(
        "provide_schedulers",
        "stops trials that fall behind the best at the same cost",
        (
            ("grace", "0.0", "cost before which nothing is stopped, in generated tokens"),
            ("behind", "0.2", "points of the score a trial may be behind the best at the same cost"),
        ),
        "search: {optimizer.lr: {loguniform: [1.0e-5, 1.0e-3]}}\ntune: {scheduler: {use: $name, behind: 0.1}}",
    ),
}
_DECLARED = {  # names to import and arguments of Component, where a role declares more than others
    Role.ENVIRONMENT: ("Component, Speaks, hookimpl", ("speaks=Speaks.MESSAGES",)),
    Role.POLICY: (
        "Column, Component, Speaks, hookimpl",
        ("speaks=Speaks.FEATURES", "columns=frozenset({Column.LOGPROB, Column.ENTROPY})"),
    ),
}


def make_project(name: str, role: str, into: Path, taken: Mapping[str, Collection[str]] | None = None) -> Path:
    """Write the project of a plugin and return its folder, ``into/name``.

    :param name: of the plugin, its component, its package and its folder; with dashes it names the distribution
    :param role: which role it fills
    :param taken: names of installed components by role, and of plugins under ``plugin``
    :raises ConfigError: the name is no package name or taken, there is no such role, or the folder is taken
    """
    problems = []
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        near = re.sub(r"\W+", "_", name.lower()).strip("_0123456789")
        hint = f"; did you mean {near!r}?" if near and near != name and not keyword.iskeyword(near) else ""
        problems.append(Problem("NAME", f"{name!r} cannot name a package: use a-z, 0-9 and _, a letter first{hint}"))
    elif importlib.util.find_spec(name) is not None:
        problems.append(Problem("NAME", f"a module {name!r} can be imported already; choose another name"))
    for kind in ("plugin", role):
        if name in (taken or {}).get(kind, ()):
            problems.append(Problem("NAME", f"{name!r} is the name of an installed {kind}; choose another"))
    if role not in list(Role):
        problems.append(Problem("--role", f"no role {role!r}{did_you_mean(role, list(Role))} Roles: {', '.join(Role)}"))
    project = into / name
    if project.exists():
        problems.append(Problem("--into", f"{project} exists already; choose another name or folder"))
    if problems:
        raise ConfigError(problems)
    for path, text in _files(name, Role(role)).items():
        file = project / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return project


def _files(name: str, role: Role) -> dict[str, str]:
    kind = _KINDS[role]
    imports, declared = _DECLARED.get(role, ("Component, hookimpl", ()))
    words = {
        "name": name,
        "distribution": name.replace("_", "-"),
        "Class": "".join(part.capitalize() for part in name.split("_")),
        "role": str(role),
        "version": __version__,
        "hook": kind.hook,
        "summary": kind.summary,
        "Summary": kind.summary[0].upper() + kind.summary[1:],
        "usage": Template(kind.usage).substitute(name=name),
        "options": "\n".join(f"| `{option}` | {default} | {meaning} |" for option, default, meaning in kind.options),
        "imports": imports,
        "declared": "".join(f"\n            {argument}," for argument in declared),
    }
    templates = {
        "pyproject.toml": "shared/pyproject.toml.tmpl",
        "README.md": "shared/README.md.tmpl",
        f"{name}/__init__.py": "shared/__init__.py.tmpl",
        f"{name}/config.py": f"{role}/config.py.tmpl",
        f"{name}/{role}.py": f"{role}/{role}.py.tmpl",
        f"tests/test_{name}.py": f"{role}/test.py.tmpl",
    }
    root = resources.files("orchestrator.plugging") / "templates"
    return {
        path: Template((root / template).read_text(encoding="utf-8")).substitute(words)
        for path, template in templates.items()
    }
