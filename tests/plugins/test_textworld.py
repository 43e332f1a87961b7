"""The environment ``textworld``, on real games: points, ends, and processes that hang, die or are left behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("textworld")
from orchestrator_plugins.textworld.config import TextWorldConfig
from orchestrator_plugins.textworld.environment import TextWorld
from orchestrator_plugins.textworld.pool import WORKER, Ask, GameError, Pool
from orchestrator_plugins.textworld.text import Situation, command_of

from orchestrator.api import Action, Episode, Finish, RolloutRequest, Split, StepsTogether, load_registry
from orchestrator.rollout.collector import Collector
from orchestrator.testing import ScriptedPolicy

# The real worker, but for a command that hangs, one that crashes and one that fails.
STRANGE = f"""
import os, sys, time
sys.path.insert(0, {str(Path(WORKER[-1]).parent)!r})
import worker

class Strange(worker.Games):
    def step(self, game, command):
        if command == "hang":
            with open(os.environ["HANGING"], "w") as told:
                told.write(f"{{os.getpid()}}\\n")
            time.sleep(600)
        if command == "crash":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        if command == "fail":
            raise ValueError("no such thing")
        return super().step(game, command)

worker.Games = Strange
worker.main()
"""
STRANGE_WORKER = (sys.executable, "-P", "-c", STRANGE)


def say(text: str, finish: Finish = Finish.STOP) -> Action:
    return Action(tokens=(1,), logprobs=(0.0,), text=text, finish=finish)


def shown(observation) -> str:
    [message] = observation
    return message["content"]


def play(environment, task, texts):
    """Play texts alone; returns what was read and the feedback."""
    episode = environment.start(task, seed=0)
    read, answers = [shown(episode.open())], []
    for text in texts:
        answers.append(episode.step(say(text)))
        read.append(answers[-1].observation and shown(answers[-1].observation))
        if answers[-1].done:
            break
    episode.close()
    return read, answers


@pytest.fixture(scope="module")
def environment() -> Iterator[TextWorld]:
    """Games of the default options, which the contract tests make too."""
    environment = TextWorld(TextWorldConfig(processes=2))
    yield environment
    environment.pool.close()


@pytest.fixture(scope="module")
def tasks(environment):
    return list(itertools.islice(environment.tasks(Split.TRAIN), 4))


@pytest.fixture(scope="module")
def supper() -> Iterator[tuple[TextWorld, object]]:
    """A simple game with a point for almost every step."""
    environment = TextWorld(TextWorldConfig(kind="simple", density="dense", goal="brief", prompt="plain", processes=1))
    yield environment, next(environment.tasks(Split.TRAIN))
    environment.pool.close()


@pytest.fixture
def strange(tmp_path, monkeypatch) -> Iterator[TextWorld]:
    monkeypatch.setenv("HANGING", str(tmp_path / "hanging"))
    pool = Pool(2, STRANGE_WORKER)
    yield TextWorld(TextWorldConfig(step_seconds=8.0), pool)
    pool.close()


# --- plays ------------------------------------------------------------------------------------------------


def test_it_fills_the_role(environment, tasks):
    built = load_registry(["textworld"]).build("environment", "textworld")

    assert isinstance(built, StepsTogether)
    assert isinstance(environment.start(tasks[0], 0), Episode)


def test_walkthroughs_win(environment, tasks):
    requests = [RolloutRequest(task=task, count=1, demonstrate=True) for task in tasks]

    groups = Collector(environment, ScriptedPolicy())(requests)

    for task, group in zip(tasks, groups, strict=True):
        [rollout] = group.rollouts
        assert rollout.metrics == {"correct": 1.0, "lost": 0.0, "score": 1.0, "max_score": 1.0}
        assert [turn.reward for turn in rollout.turns] == [0.0] * (len(task.demonstration) - 1) + [1.0]


def test_points_are_paid_when_they_are_gained(supper):
    environment, task = supper

    _, answers = play(environment, task, task.demonstration)

    gained = [answer.reward for answer in answers]
    assert set(gained) == {0.0, 1.0}
    assert sum(gained) == task.metadata["max_score"] == answers[-1].metrics["max_score"] >= 7
    assert [answer.metrics["score"] for answer in answers] == list(itertools.accumulate(gained))
    assert [answer.metrics["correct"] for answer in answers] == [0.0] * (len(answers) - 1) + [1.0]


@pytest.mark.parametrize(("density", "least", "most"), [("sparse", 1, 1), ("balanced", 3, 4), ("dense", 7, 10)])
def test_density_decides_how_many_commands_pay(density, least, most):
    environment = TextWorld(TextWorldConfig(kind="simple", density=density, goal="brief", prompt="plain", processes=1))
    task = next(environment.tasks(Split.TRAIN))

    _, answers = play(environment, task, task.demonstration)
    environment.pool.close()

    gained = [answer.reward for answer in answers]
    assert set(gained) <= {0.0, 1.0}
    assert least <= sum(gained) == task.metadata["max_score"] <= most
    assert (gained[-1], answers[-1].metrics["correct"]) == (1.0, 1.0)  # winning pays the last of them


def test_over_is_not_won(supper):
    environment, task = supper
    *most, last = task.demonstration
    dish = last.removeprefix("put ").removesuffix(" on stove")

    _, answers = play(environment, task, [*most, f"eat {dish}"])

    assert answers[-1].done
    assert not answers[-1].truncated
    assert answers[-1].metrics["lost"] == 1.0
    assert answers[-1].metrics["correct"] == 0.0
    assert answers[-1].metrics["score"] == task.metadata["max_score"] - 1


def test_a_message_names_room_events_and_inventory(supper):
    environment, task = supper

    read, _ = play(environment, task, ["open trunk and drawer", *task.demonstration[:2]])

    goal, first = read[0].split("\n")
    assert goal.startswith("The dinner is almost ready!")
    assert first.startswith("You are in the bedroom. ")
    assert first.endswith(" There is a closed wooden door leading east. You are carrying nothing.")
    place = task.demonstration[0].removeprefix("open ")
    assert read[2] == f"You are in the bedroom. You open the {place}, revealing an old key. You are carrying nothing."
    assert read[3] == f"You are in the bedroom. You take the old key from the {place}. You are carrying: an old key."


def test_a_play_can_be_repeated(environment, tasks):
    texts = ["look", "go north", "go south", *tasks[0].demonstration]

    first, again = play(environment, tasks[0], texts), play(environment, tasks[0], texts)

    assert first == again


def test_games_stepped_together_are_the_games_stepped_alone(environment, tasks):
    texts = [["inventory", *task.demonstration] for task in tasks]
    alone = [play(environment, task, told)[1] for task, told in zip(tasks, texts, strict=True)]

    episodes = [environment.start(task, 0) for task in tasks * 2]
    environment.open_together(episodes)
    together = [[] for _ in episodes]
    for turn in range(max(map(len, texts))):
        going = [place for place in range(len(episodes)) if turn < len(texts[place % 4])]
        actions = [say(texts[place % 4][turn]) for place in going]
        answers = environment.step_together([episodes[place] for place in going], actions)
        for place, answer in zip(going, answers, strict=True):
            together[place].append(answer)

    assert together == alone * 2


def test_a_play_is_over_when_its_turns_are_spent(tasks):
    environment = TextWorld(TextWorldConfig(max_turns=4, processes=1))

    _, answers = play(environment, tasks[0], ["look", "quit", "look", "look"])
    environment.pool.close()

    assert [answer.done for answer in answers] == [False, False, False, True]
    assert not answers[-1].truncated
    assert answers[-1].observation is None
    assert answers[-1].metrics["correct"] == 0.0


def test_three_times_the_quest_is_the_budget_unless_given():
    assert TextWorldConfig().turns == 12
    assert TextWorldConfig(world_size=4, objects=6, quest_length=8).turns == 24
    assert TextWorldConfig(kind="simple").turns == 24
    assert TextWorldConfig(max_turns=7).turns == 7


@pytest.mark.parametrize(("cut", "over"), [("ends", True), ("goes_on", False)])
def test_an_action_cut_by_the_token_limit_gains_nothing(tasks, cut, over):
    environment = TextWorld(TextWorldConfig(cut_action=cut))
    episode = environment.start(tasks[0], 0)

    answer = episode.step(say(tasks[0].demonstration[0], Finish.LENGTH))

    assert (answer.done, answer.reward, answer.metrics["correct"]) == (over, 0.0, 0.0)
    assert answer.metrics["max_score"] == 1.0
    assert environment.pool.processes == ()  # the game has not heard of it


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("take lamp", "take lamp"),
        ("  > take   lamp.\n\nI think", "take lamp"),
        ("open box. take lamp. go east", "open box"),
        ("open box; take lamp", "open box"),
        ("open box then take lamp", "open box"),
        ("unlock type J chest with Henderson's key", "unlock type J chest with Henderson's key"),
        ("take caf\u00e9 lamp", "take caf lamp"),
        ("take\tla\x00mp\x7f \x1b", "take lamp"),
        ("qu\x0eit", None),
        ("\\boxed{take lamp}", "boxed{take lamp}"),
        ("x" * 500, "x" * 190),
        ("", ""),
        ("quit", None),
        ("RESTORE game", None),
        ("quit, please", None),
        ("me, quit", None),
        ("take lamp, key", "take lamp, key"),
        ('oops,"take', None),
        ("undo", None),
        ("tw-trace-actions", None),
        ("tw-extra-infos moves", None),
    ],
)
def test_one_command_of_the_game_is_read_from_a_text(text, command):
    assert command_of(text) == command


def test_no_character_ends_or_hangs_the_interpreter(environment, tasks):
    before = environment.pool.processes

    read, answers = play(environment, tasks[0], ["look\x00", "\x10look", "\\qCd_W", "\\boxed{open box}", "look"])

    assert [answer.done for answer in answers] == [False] * 5
    assert read[1] == read[2] == read[5]
    assert set(before) <= set(environment.pool.processes)


def test_what_the_interpreter_prints_around_an_event_is_left_out():
    before = Situation("bedroom", "", "You are carrying nothing.")
    text = (
        "\n\n-= Cellar =-\nYou arrive.\n\nYour score has just gone up by one point.\n\n\n"
        "      *** The End ***\n\nYou scored 1.\n>            -= Cellar =-0/4"
    )

    after = before.after({"text": text, "inventory": "You are carrying:\n  a cane."})

    assert str(after) == "You are in the cellar. You arrive. You are carrying: a cane."


# --- processes that fail ----------------------------------------------------------------------------------


def collected(environment, tasks, broken, text, during=None):
    """Play all walkthroughs at once, one of them broken in its third turn; returns rollouts and failures."""

    def script(context):
        turn = len(context.actions)
        task = by_episode[context.episode.partition("/")[0]]
        return text if task is tasks[broken] and turn == 2 else task.demonstration[turn]

    by_episode = {task.id: task for task in tasks}
    collect = Collector(environment, ScriptedPolicy(script), labels={"environment": "textworld 1"})
    if during is not None:
        threading.Thread(target=during, daemon=True).start()
    groups = collect([RolloutRequest(task=task, count=1) for task in tasks])
    return groups, collect.failures


def check_the_others_won(groups, broken):
    for place, group in enumerate(groups):
        if place == broken:
            assert group.rollouts == ()
        else:
            assert [rollout.metrics["correct"] for rollout in group.rollouts] == [1.0]


def test_a_game_that_hangs_fails_alone(strange, tasks):
    groups, [failed] = collected(strange, tasks, 1, "hang")

    check_the_others_won(groups, 1)
    assert "command 'hang': no answer within 8 s; its process was ended" in str(failed.error)
    assert "raised by plugin textworld 1" in str(failed.error)
    assert len(failed.turns) == 2


def test_a_game_that_crashes_fails_alone_and_says_why(strange, tasks):
    groups, [failed] = collected(strange, tasks, 2, "crash")

    check_the_others_won(groups, 2)
    assert "command 'crash': its process ended with code 3: out of luck" in str(failed.error)


def test_a_game_that_raises_fails_alone_and_keeps_its_process(strange, tasks):
    groups, [failed] = collected(strange, tasks, 0, "fail")

    check_the_others_won(groups, 0)
    assert "command 'fail': ValueError: no such thing" in str(failed.error)


def test_a_process_that_is_killed_at_work_fails_one_game(strange, tasks, tmp_path):
    def kill_the_one_that_hangs():
        told = tmp_path / "hanging"
        while not (told.exists() and told.read_text().endswith("\n")):
            time.sleep(0.01)
        os.kill(int(told.read_text()), signal.SIGKILL)

    groups, [failed] = collected(strange, tasks, 3, "hang", kill_the_one_that_hangs)

    check_the_others_won(groups, 3)
    assert "was killed by SIGKILL" in str(failed.error)


def test_a_process_that_is_killed_in_idleness_fails_no_game(environment, tasks):
    episodes = [environment.start(task, 0) for task in tasks]
    for turn in range(2):
        environment.step_together(episodes, [say(task.demonstration[turn]) for task in tasks])
    before = environment.pool.processes
    for process in before:
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)

    for turn in range(2, max(len(task.demonstration) for task in tasks)):
        going = [place for place, task in enumerate(tasks) if turn < len(task.demonstration)]
        answers = environment.step_together(
            [episodes[place] for place in going], [say(tasks[place].demonstration[turn]) for place in going]
        )
        for place, answer in zip(going, answers, strict=True):
            assert answer.done == (turn == len(tasks[place].demonstration) - 1)
            assert answer.metrics["correct"] == float(answer.done)

    assert not set(before) & set(environment.pool.processes)


def test_a_worker_that_cannot_start_says_why():
    pool = Pool(2, (sys.executable, "-c", "raise SystemExit('no library')"))

    answers = pool.run([Ask(message={"do": "play"}, limit=20.0, what=f"game {n}") for n in range(3)])

    assert [str(answer) for answer in answers] == [
        f"game {n}: its process ended with code 1: no library" for n in range(3)
    ]
    assert all(isinstance(answer, GameError) for answer in answers)
    pool.close()


SCRIPT = """
import sys, threading
from orchestrator_plugins.textworld.pool import Ask, Pool
pool = Pool(2, (sys.executable, "-P", "-c", {worker!r}))
asks = [Ask(message={{"do": "play", "game": n, "command": "hang", "file": "x", "history": []}}, limit=600.0, what="")
        for n in range(2)]
threading.Thread(target=pool.run, args=(asks,), daemon=True).start()
while len(pool.processes) < 2:
    pass
print(*pool.processes, flush=True)
{then}
"""
HANGS = f"""
import sys, time
sys.path.insert(0, {str(Path(WORKER[-1]).parent)!r})
import worker

class Hangs:
    def answer(self, request):
        while True:
            pass

worker.Games = Hangs
worker.main()
"""


@pytest.mark.parametrize("end", ["killed", "exit"])
def test_no_process_is_left_behind(end):
    then = "sys.stdin.read()" if end == "killed" else ""
    owner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(worker=HANGS, then=then)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    workers = [int(word) for word in owner.stdout.readline().split()]
    time.sleep(0.5)

    if end == "killed":
        owner.kill()
    owner.wait(timeout=20)

    deadline = time.monotonic() + 20.0
    while (left := [worker for worker in workers if _running(worker)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2
    assert left == []
    owner.stdin.close()
    owner.stdout.close()


def _running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_interpreters_are_used_again_for_other_games(environment, tasks):
    pool = Pool(1, (sys.executable, "-P", "-c", FEW_INTERPRETERS))
    few = TextWorld(TextWorldConfig(), pool)

    for _ in range(2):
        for task in tasks:
            assert play(few, task, ["look", *task.demonstration]) == play(
                environment, task, ["look", *task.demonstration]
            )
    pool.close()


FEW_INTERPRETERS = f"""
import sys
sys.path.insert(0, {str(Path(WORKER[-1]).parent)!r})
import worker
worker.IDLE_GAMES = 1
worker.main()
"""
