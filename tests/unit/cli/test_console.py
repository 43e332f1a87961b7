"""What a terminal shows of a running sweep."""

from io import StringIO

import pytest
from rich.console import Console

from orchestrator.cli.console import TrialTable, duration
from orchestrator.contract.plan import Plan, TrialSpec
from orchestrator.contract.settings import Experiment

SETTINGS = Experiment.model_validate(
    {"name": "x", "environment": {"use": "y"}, "schedule": {"steps": 10}, "budget": {"generated_tokens": 400}}
)
PLAN = Plan(
    name="x",
    experiment=SETTINGS,
    trials=(
        TrialSpec(id="a-s0", arm="a", seed=0, settings=SETTINGS),
        TrialSpec(id="b-s0", arm="b", seed=0, settings=SETTINGS),
    ),
    fingerprint={},
    arms={"a": SETTINGS, "b": SETTINGS},
)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.4, "0s"), (59, "59s"), (61, "1m 1s"), (3700, "1h 1m"), (90000, "1d 1h")]
)
def test_durations_have_at_most_two_units(seconds, words):
    assert duration(seconds) == words


def test_without_a_terminal_there_is_a_line_per_change():
    text = StringIO()
    watcher = TrialTable(PLAN, Console(file=text, width=200))

    with watcher.shown():
        watcher.trial_update("a-s0", "running", 0, {})
        watcher.trial_update("a-s0", "running", 1, {})  # too soon after the last line
        watcher.trial_update(
            "a-s0", "done", 10, {"eval/pass_at_1": 0.5, "cost/generated_tokens": 400, "cost/seconds": 8}
        )

    assert text.getvalue().splitlines() == ["a-s0 running step 0/10", "a-s0 done step 10/10, score 0.500, 50 tokens/s"]


def test_time_left_follows_the_budget_when_it_ends_first():
    watcher = TrialTable(PLAN, Console(file=StringIO()))

    watcher.trial_update("a-s0", "running", 1, {"cost/generated_tokens": 200, "cost/seconds": 30})

    # a tenth of the steps, but half of the tokens, in 30 s: as long again
    assert watcher._rows["a-s0"].left() == 30


def test_the_live_table_shows_every_trial():
    text = StringIO()
    console = Console(file=text, width=120, force_terminal=True)
    watcher = TrialTable(PLAN, console)

    with watcher.shown():
        watcher.trial_update("a-s0", "failed", 3, {"rollout/reward/mean": 0.25})
        watcher.trial_update("new-s0", "running", 0, {})

    shown = text.getvalue()
    assert all(
        word in shown
        for word in ("a-s0", "b-s0", "new-s0", "failed", "0.250", "3 trials: 1 running, 1 failed, 1 pending")
    )


def test_what_a_look_decided_is_a_line_and_stays_in_sight():
    text = StringIO()
    watcher = TrialTable(PLAN, Console(file=text, width=200))

    with watcher.shown():
        watcher.looked("look 1, 3 seeds: decided b better; 1.15 % of 5 % error spent")
    assert text.getvalue() == "look 1, 3 seeds: decided b better; 1.15 % of 5 % error spent\n"

    terminal = Console(file=StringIO(), width=200, force_terminal=True)
    shown = TrialTable(PLAN, terminal)
    with shown.shown():
        shown.looked("look 2, 5 seeds: decided nothing")
    assert "look 2, 5 seeds: decided nothing" in terminal.file.getvalue()
