"""Components that are not ours are checked before an experiment spends: once per version, with its options, in its world."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.examination import examine
from orchestrator.cli.main import app

PLUGIN = '''"""A reward, a world and an estimator of somebody else."""

from pydantic import Field

from orchestrator.api import Component, Credit, PluginConfig, Score, Speaks, hookimpl
from orchestrator.testing import EchoEnvironment


class Scale(PluginConfig):
    """What a score is multiplied by."""

    scale: float = Field(1.0, description="factor")
    known: str = Field("reference", description="what the tasks must hold")


class Mine:
    def __init__(self, config):
        self.config = config

    def score(self, group):
        assert getattr(group.task, self.config.known), "a task of another world"
        return [Score(value=self.config.scale) for _ in group.rollouts]


class Echo(EchoEnvironment):
    pass


class Nan:
    needs = frozenset()

    def estimate(self, batch):
        return Credit(advantages=batch.mask / 0.0 * 0.0)


class Rash:
    adaptive = True

    def propose(self, search, known):
        return {"nowhere": 1.0}


class Whim:
    def judge(self, report, before):
        return True


@hookimpl
def provide_searchers():
    return [Component(name="rash", build=lambda _: Rash())]


@hookimpl
def provide_schedulers():
    return [Component(name="whim", build=lambda _: Whim())]


@hookimpl
def provide_rewards():
    return [Component(name="scaled", build=Mine, config=Scale)]


@hookimpl
def provide_environments():
    return [Component(name="echoing", build=lambda _: Echo(), speaks=Speaks.MESSAGES)]


@hookimpl
def provide_advantage_estimators():
    return [Component(name="nan_credit", build=lambda _: Nan())]
'''
EXPERIMENT = """
name: strangers
environment: {use: echoing}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
rewards: [{use: scaled, scale: 2.0}]
recipe: grpo
sampler: {count: 2}
schedule: {steps: 1, tasks_per_step: 1}
sampling: {max_tokens: 2}
evaluation: {every: 0, first: false, tasks: 1, samples: 1, k: [1]}
tracking: {enabled: false}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An experiment file beside an installed plugin, in the folder where commands run; nothing was checked yet."""
    site = tmp_path / "site"
    package, info = site / "stranger_plugin", site / "stranger_plugin-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[orchestrator.plugins]\nstranger = stranger_plugin\n")
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _call(*arguments):
    return CliRunner().invoke(app, [*arguments])


def test_all_that_is_broken_is_said_at_once_before_a_folder_is_made(folder):
    broken = ["x.yaml", "advantage={use: nan_credit}", "rewards=[{use: scaled, scale: 1e30}]"]

    planned, refused = _call("plan", *broken), _call("run", "--local", *broken)

    assert planned.exit_code == 0, planned.output
    assert refused.exit_code == 2, refused.output
    said = " ".join(refused.output.split())
    assert "checking environment echoing, advantage nan_credit, reward scaled, once per version" in said
    assert (
        "advantage: advantage nan_credit: advantage 'nan_credit' breaks its contract: - advantages are not finite"
        in said
    )
    assert "rewards.0: reward scaled: reward 'scaled' breaks its contract: - reward 'scaled', rollout 0" in said
    assert "the value is 1e+30; expected a magnitude of at most 1e+16" in said
    assert "mend these, or run without this check: --no-check" in said
    assert not (folder / "runs").exists()
    remembered = json.loads((folder / "cache" / "rl-orchestrator" / "checked.json").read_text())
    assert len(remembered) == 1  # the environment is sound


def test_who_searches_is_checked_where_there_is_a_search(folder):
    asked = ["run", "x.yaml", "evaluation.every=1", "schedule.steps=2", "tune={searcher: rash, scheduler: whim}"]

    refused = _call(*asked, "search={optimizer.lr: {loguniform: [0.1, 1.0]}}", "tune.metric=eval/reward/mean")

    assert refused.exit_code == 2, refused.output
    said = " ".join(refused.output.split())
    assert "checking environment echoing, reward scaled, searcher rash, scheduler whim, once per version" in said
    assert "tune.searcher: searcher rash: searcher 'rash' breaks its contract" in said
    assert "tune.scheduler: scheduler whim: scheduler 'whim' breaks its contract" in said
    assert not (folder / "runs").exists()


def test_what_is_sound_is_checked_once_and_other_options_anew(folder):
    first, again = _call("run", "--local", "x.yaml"), _call("run", "--local", "x.yaml")
    skipped = _call("run", "--local", "--no-check", "x.yaml", "rewards=[{use: scaled, scale: 1e30}]")

    assert first.exit_code == again.exit_code == 0, first.output
    assert "checking environment echoing, reward scaled" in " ".join(first.output.split())
    assert "checking" not in again.output
    assert "checking" not in skipped.output
    assert skipped.exit_code == 1  # the trial says it
    assert len(list((folder / "runs").iterdir())) == 3


@pytest.mark.parametrize(("body", "complaint"), [("while True: pass", "it had not returned after 1 s"), ("__import__('collections').deque(__import__('itertools').repeat(0), 0)", "is not done after 1 s")])  # fmt: skip
def test_a_call_that_never_returns_is_named_and_the_others_are_checked(tmp_path, body, complaint):
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "endless"\nversion = "0"\n[project.entry-points."orchestrator.plugins"]\nendless = "endless"\n'
    )
    (tmp_path / "endless.py").write_text(f'''"""Worlds, one of which never ends."""
from orchestrator.api import Component, Speaks, hookimpl
from orchestrator.testing import EchoEnvironment


class Endless(EchoEnvironment):
    def start(self, task, seed):
        {body}


@hookimpl
def provide_environments():
    worlds = {{"an_endless": Endless, "fine": EchoEnvironment}}
    return [Component(name=n, build=lambda _, w=w: w(), speaks=Speaks.MESSAGES) for n, w in worlds.items()]
''')

    found = dict(examine({"project": str(tmp_path)}, seconds=1.0))

    assert found["environment fine"] is None
    assert complaint in found["environment an_endless"]
    assert "in start" in found["environment an_endless"]
    assert "endless.py" in found["environment an_endless"]
