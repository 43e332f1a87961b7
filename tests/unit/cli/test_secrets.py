"""A secret is used and not kept: files hold the reference it came from, or three stars, and resume asks for it."""

import json
import os
import stat
import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli
from orchestrator.contract.secrets import conceal, reveal
from orchestrator.errors import ConfigError, describe
from orchestrator.experiment.expanded import expanded
from orchestrator.plugging.locating import absolute_store
from orchestrator.plugging.registry import load_registry
from orchestrator.runs.store import load_plan

FILE = """
name: town
environment: {use: countdown}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
rewards: [{use: judge}]
schedule: {steps: 1, tasks_per_step: 1}
sampling: {max_tokens: 2, max_turns: 1}
evaluation: {tasks: 1, samples: 1, first: false}
failures: {step_seconds: 0, reward_seconds: 0}  # so that nobody need watch, from a process beside
tracking: {enabled: false, experiment: "${oc.env:TOWN}"}
"""
PLUGIN = """
from dataclasses import dataclass

from orchestrator.api import Component, PluginConfig, Score, UseReward, hookimpl
from pydantic import SecretStr

class Server(PluginConfig):
    token: SecretStr | None = None
    url: str | None = None

@dataclass(frozen=True)
class Login:
    token: SecretStr
    user: str = "me"

class Options(PluginConfig):
    server: Server | None = None
    servers: dict[str, Server] | None = None
    tokens: tuple[SecretStr, ...] = ()
    login: Login | None = None
    inner: UseReward | None = None
    mark: str = "***"
    token: SecretStr | None = None
    url: str | None = None

class Judge:
    def __init__(self, options):
        assert options.token is None or options.token.get_secret_value() == "hunter2", "not revealed"
        assert options.url is None or "hunter2" in options.url, "not revealed"
        assert options.mark == "***", "revealed"
        for server in (options.server, *(options.servers or {}).values()):
            assert server is None or "hunter2" in (server.url or server.token.get_secret_value()), "not revealed"
        for token in (*options.tokens, *([options.login.token] if options.login else ())):
            assert token.get_secret_value() == "hunter2", "not revealed"
    def score(self, group):
        return [Score(value=0.0) for _ in group.rollouts]

@hookimpl
def provide_rewards():
    return [Component(name="judge", config=Options, build=Judge)]
"""
VARIABLE = "ORCHESTRATOR_SECRET_JUDGE_TOKEN"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("ORCHESTRATOR_SECRET_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("orchestrator.contract.secrets._GIVEN", set())
    monkeypatch.setenv("TOKEN", "hunter2")
    monkeypatch.setenv("TOWN", "Bath")
    (tmp_path / "town.yaml").write_text(FILE)
    folder = tmp_path / "site"
    (folder / "my_dist-1.2.dist-info").mkdir(parents=True)
    (folder / "my_dist-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: my-dist\nVersion: 1.2\n")
    (folder / "my_dist-1.2.dist-info" / "entry_points.txt").write_text("[orchestrator.plugins]\nmine = judge_plugin\n")
    (folder / "judge_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    yield lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))
    sys.modules.pop("judge_plugin", None)


def kept(folder):
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        ("rewards.0.token=${oc.env:TOKEN}", "${oc.env:TOKEN}"),
        ("rewards.0.token=hunter2", "***"),
        ("rewards.0.url=http://me:${oc.env:TOKEN}@host/x", "http://me:${oc.env:TOKEN}@host/x"),
        ("rewards.0.url=http://me:hunter2@host/x", "http://me:***@host/x"),
        ("rewards.0.server={token: hunter2}", "***"),
        ("rewards.0.server.url=http://me:hunter2@host/x", "http://me:***@host/x"),
        ("rewards.0.servers.a.url=http://me:${oc.env:TOKEN}@host/x", "http://me:${oc.env:TOKEN}@host/x"),
        ("rewards.0.tokens=['${oc.env:TOKEN}', hunter2]", "${oc.env:TOKEN}"),
        ("rewards.0.login={token: hunter2, user: you}", "***"),
        ("rewards.0.inner={use: judge, server: {token: '${oc.env:TOKEN}'}}", "${oc.env:TOKEN}"),
        ("rewards.0.inner={use: judge, tokens: [hunter2]}", "***"),
        ("tracking.uri=http://me:${oc.env:TOKEN}@host", "http://me:${oc.env:TOKEN}@host"),
        ("tracking.uri=postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
    ],
)
def test_a_secret_is_used_and_not_kept(asked, tmp_path, setting, shown):
    planned = asked("plan", "town.yaml", setting)
    done = asked("run", "town.yaml", "--local", "--no-check", setting)  # the check has tests of its own
    [run] = (tmp_path / "runs").iterdir()

    assert done.exit_code == 0, done.output
    assert shown in (run / "plan.json").read_text()
    assert "hunter2" not in kept(run) + done.output + planned.output
    assert json.loads((run / "plan.json").read_text())["trials"][0]["config"]["tracking"]["experiment"] == "Bath"


def test_a_process_that_runs_the_trial_beside_finds_the_secret_too(asked, tmp_path):
    done = asked("run", "town.yaml", "--local", "rewards.0.token=hunter2", "failures.reward_seconds=600")

    [run] = (tmp_path / "runs").iterdir()
    assert done.exit_code == 0, done.output
    assert "hunter2" not in kept(run) + done.output


def test_an_arms_own_secret_is_not_kept_either(asked):
    arms = "arms={a: {rewards: [{use: judge, token: hunter2}]}, b: {}}"

    done = asked("plan", "town.yaml", arms, "--json")

    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.stdout
    assert json.loads(done.stdout)["experiment"]["arms"]["a"]["rewards"][0]["token"] == "***"


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        (["search={rewards.0.token: {choice: [hunter2, other]}}"], "search.rewards.0.token"),
        (["search={rewards.0.url: {choice: ['http://me:hunter2@host', x]}}"], "search.rewards.0.url"),
        (["search={rewards.0.server: {choice: [{token: hunter2}, null]}}"], "search.rewards.0.server"),
        (["search={rewards: {choice: [[{use: judge, login: {token: hunter2}}], [{use: judge}]]}}"], "search.rewards"),
        (["resources.address=ray://me:hunter2@host:1"], "resources.address"),
        (["tracking.experiment=http://me:hunter2@host"], "tracking.experiment"),
    ],
)
def test_a_secret_that_would_be_kept_is_refused(asked, settings, path):
    refused = asked("plan", "town.yaml", *settings)

    assert refused.exit_code == 2, refused.output
    assert f"{path}:" in refused.stderr
    assert "hunter2" not in refused.output


def test_a_secret_beside_what_is_searched_is_no_matter(asked):
    searched = "search={rewards.0.server: {choice: [{url: http://host}, null]}}"

    done = asked("plan", "town.yaml", searched, "rewards.0.token=hunter2", "--json")

    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.stdout


def test_settings_with_all_their_defaults_hide_it_too(asked, tmp_path):
    setting = "rewards.0.servers={a: {token: '${oc.env:TOKEN}', url: 'http://me:hunter2@host'}}"
    assert asked("run", "town.yaml", "--local", setting).exit_code == 0
    [run] = (tmp_path / "runs").iterdir()

    shown = expanded(load_plan(run).trials[0].settings, load_registry())

    server = {"token": "${oc.env:TOKEN}", "url": "http://me:***@host"}
    assert shown["rewards"][0]["servers"] == {"a": server}
    assert shown["rewards"][0]["mark"] == "***"


@pytest.mark.parametrize("setting", ["sqlite:///stores/m.db", "${oc.env:STORE}"])
def test_a_relative_store_is_where_the_run_was_begun(asked, tmp_path, monkeypatch, setting):
    monkeypatch.setenv("STORE", "sqlite:///stores/m.db")

    done = asked("plan", "town.yaml", f"tracking.uri={setting}", "--json")

    plan = json.loads(done.stdout)
    uris = {plan["experiment"]["tracking"]["uri"], *(trial["config"]["tracking"]["uri"] for trial in plan["trials"])}
    assert uris == {f"sqlite:///{tmp_path}/stores/m.db"}


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("sqlite:///m.db", "sqlite:///HERE/m.db"),
        ("sqlite+pysqlite:///a/m.db?timeout=5", "sqlite+pysqlite:///HERE/a/m.db?timeout=5"),
        ("sqlite:////there/m.db", "sqlite:////there/m.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("sqlite:///file:m.db?uri=true", "sqlite:///file:m.db?uri=true"),
        ("http://host/a", "http://host/a"),
    ],
)
def test_addresses_of_stores(tmp_path, monkeypatch, uri, kept):
    monkeypatch.chdir(tmp_path)

    assert absolute_store(uri) == kept.replace("HERE", str(tmp_path))


def test_resume_asks_for_a_secret_that_was_given_once(asked, tmp_path, monkeypatch):
    assert asked("run", "town.yaml", "--local", "rewards.0.token=hunter2").exit_code == 0
    [run] = (tmp_path / "runs").iterdir()
    monkeypatch.delenv(VARIABLE)

    refused = asked("resume", run, "--local")
    assert refused.exit_code == 2
    assert f"set {VARIABLE}" in refused.stderr

    monkeypatch.setenv(VARIABLE, "hunter2")
    assert asked("resume", run, "--local").exit_code == 0


def test_a_runs_folder_is_its_owners_unless_it_is_a_teams(asked, tmp_path):
    (tmp_path / "team").mkdir()
    (tmp_path / "team").chmod(0o2775)

    for runs in ("mine", "team"):
        assert asked("run", "town.yaml", "--local", "--runs", runs).exit_code == 0

    modes = {runs: stat.S_IMODE(next((tmp_path / runs).iterdir()).stat().st_mode) for runs in ("mine", "team")}
    assert modes["mine"] == 0o700
    assert modes["team"] & 0o050


def test_an_error_shows_no_password_of_an_address():
    error = ValueError("no answer from postgresql://me:hunter2@host/db, nor from http://you:hunter2@host")

    assert describe(error) == "ValueError: no answer from postgresql://me:***@host/db, nor from http://you:***@host"


def test_hiding_and_finding_again(monkeypatch):
    monkeypatch.setattr("orchestrator.contract.secrets._GIVEN", set())
    monkeypatch.delenv("ORCHESTRATOR_SECRET_A_B", raising=False)

    hidden = conceal("mysql://me:p%40ss@host/db?x=1", "a.b")

    assert hidden == "mysql://me:***@host/db?x=1"
    assert conceal(hidden, "a.b") == hidden
    assert reveal(hidden, "a.b") == "mysql://me:p%40ss@host/db?x=1"
    assert reveal("sqlite:///x", "a.b") == conceal("sqlite:///x", "a.b") == "sqlite:///x"
    with pytest.raises(ConfigError, match="two literal secrets"):
        conceal("mysql://me:other@host/db", "a.b")
    with pytest.raises(ConfigError, match="NOBODY, which is not set"):
        reveal("${oc.env:NOBODY}", "a.b")
    monkeypatch.delenv("ORCHESTRATOR_SECRET_A_B")
