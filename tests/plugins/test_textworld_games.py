"""Which games the environment ``textworld`` plays, how they are made, and their words."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("textworld")
from orchestrator_plugins.textworld.config import RANGES, Evaluation, TextWorldConfig, Training, seeds_of
from orchestrator_plugins.textworld.environment import TextWorld
from orchestrator_plugins.textworld.games import BARREN, Games
from orchestrator_plugins.textworld.pool import GameError, Pool
from orchestrator_plugins.textworld.words import words_of

from orchestrator.api import ConfigError, Split

# --- which games ------------------------------------------------------------------------------------------


def test_no_two_kinds_of_games_share_a_seed():
    for seed in (0, 1, 7):
        kinds = [seeds_of(kind, seed) for kind in RANGES]
        for one, other in itertools.combinations([*kinds, *(seeds_of(kind, seed + 1) for kind in RANGES)], 2):
            assert not set(one) & set(other)


def test_splits_take_their_games_from_the_ranges_asked_for(tmp_path):
    def seeds(split, **options):
        environment = TextWorld(TextWorldConfig(cache=tmp_path, **options))
        for kind in RANGES:
            for seed in seeds_of(kind, options.get("seed", 0))[:8]:
                pretend(environment, seed)
        return [task.metadata["seed"] for task in itertools.islice(environment.tasks(split), 3)]

    assert seeds(Split.TRAIN) == [30_001, 30_002, 30_003]
    assert seeds(Split.EVAL) == [40_001, 40_002, 40_003]
    assert seeds(Split.TRAIN, train_on="demonstrations", train_tasks=2) == [50_001, 50_002]
    assert seeds(Split.EVAL, evaluate_on="test") == [1, 2, 3]
    assert seeds(Split.TRAIN, seed=2) == [230_001, 230_002, 230_003]


def pretend(environment, seed, steps=4, **about):
    """Write down a game without making it."""
    folder = environment.games.folder / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = {"objective": "Go.", "walkthrough": ["look"] * steps, "max_score": 1, "opening": "-= A =-", "inventory": ""}
    (folder / "about.json").write_text(json.dumps(about or made))


def test_games_of_another_length_can_be_left_out(tmp_path):
    environment = TextWorld(TextWorldConfig(cache=tmp_path, exact_length=True, processes=2))
    lengths = [4, 3, 4, 2, 1, 4, 4, 4]
    for seed, steps in zip(itertools.count(30_001), lengths, strict=False):
        pretend(environment, seed, steps)
    pretend(environment, 30_003, unusable="no quest")

    found = [task.metadata["seed"] for task in itertools.islice(environment.tasks(Split.TRAIN), 3)]

    assert found == [30_001, 30_006, 30_007]


def test_options_that_give_no_game_are_named(tmp_path):
    environment = TextWorld(TextWorldConfig(cache=tmp_path, world_size=1, objects=1, quest_length=30))
    for seed in range(30_001, 30_001 + BARREN + 8):
        pretend(environment, seed, unusable="no quest could be generated")

    with pytest.raises(ConfigError, match=r'environment: 32 seeds in a row.*"quest_length": 30.*no quest could be'):
        next(environment.tasks(Split.TRAIN))


def test_options_of_the_other_kind_are_refused():
    with pytest.raises(ValueError, match="quest_length, world_size: for kind custom only, and kind is simple"):
        TextWorldConfig(kind="simple", world_size=3, quest_length=4)
    with pytest.raises(ValueError, match="density: for kind simple only, and kind is custom"):
        TextWorldConfig(density="sparse")
    with pytest.raises(ValueError, match="train_tasks 20000: there are 10000 training games"):
        TextWorldConfig(train_tasks=20_000)


FAILING_MAKER = """
import json, os, sys
from pathlib import Path
for line in sys.stdin:
    request = json.loads(line)
    folder = Path(request["folder"])
    tries = folder / f"tries-{request['seed']}"
    tries.write_text(tries.read_text() + "." if tries.exists() else ".")
    if len(tries.read_text()) <= int(sys.argv[1]):
        os.kill(os.getpid(), 9)
    (folder / str(request["seed"])).mkdir()
    (folder / str(request["seed"]) / "about.json").write_text(json.dumps(
        {"objective": "", "walkthrough": ["look"], "max_score": 1, "opening": "", "inventory": ""}))
    print(json.dumps({"made": True}), flush=True)
"""


@pytest.mark.parametrize("kills", [1, 2])
def test_a_process_that_is_killed_while_it_makes_a_game_makes_it_once_more(tmp_path, caplog, kills):
    pool = Pool(2, (sys.executable, "-c", FAILING_MAKER, str(kills)))
    games = Games({"kind": "custom"}, tmp_path, pool, make_seconds=20.0)

    if kills == 1:
        assert [game.seed for game in games.take([7, 8, 9])] == [7, 8, 9]
        assert "seed 8: its process was killed by SIGKILL; it is tried once more" in caplog.text
    else:
        with pytest.raises(GameError, match="generating the game of seed 7: its process was killed by SIGKILL"):
            list(games.take([7]))
    pool.close()


def test_two_processes_share_the_games_they_make(tmp_path):
    ask = (
        "import itertools, sys; from pathlib import Path; from orchestrator.api import Split\n"
        "from orchestrator_plugins.textworld.config import TextWorldConfig\n"
        "from orchestrator_plugins.textworld.environment import TextWorld\n"
        f"options = TextWorldConfig(theme='basic', cache=Path({str(tmp_path)!r}), processes=1)\n"
        "[print(task.id, task.demonstration) for task in itertools.islice(TextWorld(options).tasks(Split.EVAL), 2)]\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True) for _ in range(2)]

    said = [process.communicate(timeout=120)[0] for process in both]

    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 2
    [folder] = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["40001", "40002", "generator.json"]
    assert sorted(path.name for path in (folder / "40001").iterdir()) == ["about.json", "game.json", "game.z8"]


def test_without_the_package_the_plugin_says_what_to_install(monkeypatch):
    import importlib.util

    import orchestrator_plugins.textworld as plugin

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, plugin.__name__)
    with pytest.raises(ImportError, match=r"pip install 'rl-orchestrator\[textworld\]'"):
        importlib.import_module(plugin.__name__)


def test_ranges_are_those_the_readme_names():
    readme = (Path(__file__).parents[2] / "plugins/orchestrator_plugins/textworld/README.md").read_text()

    for kind in (*Training, *Evaluation):
        first, last = RANGES[kind]
        assert f"| {kind} | {first} to {last} |" in readme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{bad", r"--options: Expecting property name .*; expected JSON such as"),
        ("[1]", r"--options: got \[1\]; expected JSON such as"),
        ('{"theme": "nope"}', r"environment\.theme: Input should be 'house' or 'basic'"),
    ],
)
def test_options_for_the_words_of_games_are_refused_by_name(options, message):
    from orchestrator_plugins import textworld as plugin

    [command] = plugin.provide_commands()

    with pytest.raises(ConfigError, match=message):
        command.run(options=options)


def test_words_come_before_the_phrases_that_shorten_most():
    texts = ["You are in the hall. You are in the cellar.", "open A-box", "open B-box", "You are here"]

    assert words_of(texts, 100)[:5] == ["You", "are", "in", "the", "open"]
    assert words_of(texts, 3) == ["You", "are", "in"]
    assert words_of(texts, 100)[-3:] == ["You are", "You are in", "You are in the"]
    assert "open A" not in words_of(texts, 100)
