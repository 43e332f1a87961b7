"""Commands of plugins: added to ours, never in their way, and one that cannot be used says why."""

import sys

import pytest
from typer.testing import CliRunner

from orchestrator.cli import main as cli

GREET = """
def greet(name: str, loud: bool = False):
    print(name.upper() if loud else name)
"""
UNREADABLE = """
def greet(name: "Unheard"):
    print(name)
"""


def call(*arguments):
    return CliRunner().invoke(cli.app, [*arguments])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a plugin of one module, under a name, with the commands its source lists."""

    def add(plugin, functions, commands):
        info = tmp_path / f"{plugin}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[orchestrator.plugins]\n{plugin} = {plugin}\n")
        (tmp_path / f"{plugin}.py").write_text(
            "from __future__ import annotations\nfrom orchestrator.api import Command, hookimpl\n"
            f"{functions}\n@hookimpl\ndef provide_commands():\n    return {commands}\n"
        )
        cli._plugin_commands.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield add
    cli._plugin_commands.cache_clear()
    for name in [name for name in sys.modules if name.startswith("greeter_")]:
        del sys.modules[name]


def test_commands_of_plugins_are_added(install):
    install("greeter_a", GREET, "[Command(name='greet', run=greet, summary='Say a name.')]")

    assert "Say a name." in call("--help").stdout
    assert call("greet", "ada", "--loud").stdout == "ADA\n"


def test_a_command_named_like_ours_stays_out_and_the_check_says_so(install):
    install("greeter_a", GREET, "[Command(name='report', run=greet), Command(name='greet', run=greet)]")

    listed = [line.split()[0] for line in call("--help").stdout.splitlines() if line.startswith("  ") and line.split()]
    checked = call("plugins", "check", "greeter_a")

    assert listed.count("report") == 1
    assert "directories of runs" in call("report", "--help").stdout
    assert call("greet", "ada").stdout == "ada\n"
    assert checked.exit_code == 1
    assert (
        "command report of plugin 'greeter_a' (greeter_a 1.2): the name is that of a built-in command" in checked.stdout
    )
    assert "✓ command greet of plugin 'greeter_a'" in checked.stdout


def test_of_two_plugins_with_one_name_the_second_is_said(install):
    install("greeter_c", GREET, "[Command(name='greet', run=greet)]")
    install("greeter_d", GREET, "[Command(name='greet', run=greet)]")

    said = [call("plugins", "check", name).stdout for name in ("greeter_c", "greeter_d")]

    assert sum("the name is that of a command of plugin" in one for one in said) == 1


@pytest.mark.parametrize(
    ("functions", "commands", "reason"),
    [
        (UNREADABLE, "[Command(name='greet', run=greet)]", "NameError: name 'Unheard' is not defined"),
        ("", "1 / 0", "ZeroDivisionError"),
        ("", "['greet']", "gave a str; expected Command(name=..., run=...)"),
        ("", "7", "returned int 7; return a list"),
    ],
)
def test_a_command_that_cannot_be_read_breaks_no_other(install, functions, commands, reason):
    install("greeter_a", functions, commands)

    helped, checked = call("--help"), call("plugins", "check", "greeter_a")

    assert helped.exit_code == 0
    assert "resume" in helped.stdout
    assert checked.exit_code == 1
    assert reason in " ".join(checked.stdout.split())
    assert "greeter_a" in checked.stdout


def test_typing_a_command_that_cannot_be_read_says_why(install):
    install("greeter_a", UNREADABLE, "[Command(name='greet', run=greet)]")

    typed = call("greet", "--loud", "ada")

    assert typed.exit_code == 2
    assert "the command greet cannot be read" in " ".join(typed.output.split())
    assert "raised by plugin 'greeter_a' (greeter_a 1.2) in command 'greet'" in " ".join(typed.output.split())
    assert "Cannot be used" in call("--help").stdout
