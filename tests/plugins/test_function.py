"""A function of the user's as a reward: what it is passed, what it may return, how its errors are told, when it is imported."""

import json
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from orchestrator.api import Action, ConfigError, Rollout, RolloutGroup, Task, Turn, load_registry
from orchestrator.cli import main as cli
from orchestrator.cli.making import say_what_is_imported
from orchestrator.contract.plan import Plan
from orchestrator.errors import PluginContractError
from orchestrator.runners.trial import run_spec
from orchestrator.runs.layout import RunFolder
from orchestrator.runs.store import load_plan
from orchestrator.testing import check_component

TASK = Task(
    id="train-1",
    prompt=({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}),
    reference="2",
    metadata={"level": 3, "answer": "2"},
)


@pytest.fixture(scope="module")
def registry():
    return load_registry(["function", "questions", "baselines"])


@pytest.fixture
def reward(registry, tmp_path):
    """Build the reward from the text of a file."""

    def make(text, function="score", **options):
        (tmp_path / "my_reward.py").write_text(textwrap.dedent(text))
        return registry.build("reward", "function", {"path": f"{tmp_path}/my_reward.py:{function}", **options})

    return make


def answers(*texts, task=TASK):
    rollouts = [
        Rollout(task_id=task.id, index=n, seed=n, turns=(Turn(observation=(), action=Action(tokens=(), logprobs=(), text=text)),))
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return RolloutGroup(task=task, rollouts=tuple(rollouts))


def values(reward, *texts):
    return [score.value for score in reward.score(answers(*texts))]


def test_it_keeps_the_contract_of_rewards(reward):
    check_component(reward("def score(text): return len(text)"))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("def score(text, reference): return text == reference", [1, 0]),
        ("def score(completion, *, level=0): return level * len(completion)", [3, 9]),
        ("def score(text, /, missing=7): return missing", [7, 7]),
        ("def score(texts): return [len(text) for text in texts]", [1, 3]),
        ("def score(text: list[str]): return [len(text)] * 2", [2, 2]),
        ("from typing import Sequence\ndef score(response: Sequence[str]): return (1, 2)", [1, 2]),
        ("import numpy\ndef score(texts, prompt): return numpy.array([len(prompt)] * 2)", [4, 4]),
        ("def score(text, messages, task_id): return len(messages) + (task_id == 'train-1')", [3, 3]),
        ("def score(text, metadata): return float(metadata['answer'])", [2, 2]),
        ("def score(**known): return known['level'] + len(known['text'])", [4, 6]),
        ("async def score(text): return len(text)", [1, 3]),
        ("import asyncio\nasync def score(texts):\n    await asyncio.sleep(0)\n    return range(2)", [0, 1]),
        ("import functools\nscore = functools.partial(lambda text, by: by * len(text), by=2)", [2, 6]),
        ("class Score:\n    def __call__(self, text): return len(text)\nscore = Score()", [1, 3]),
    ],
)
def test_a_function_gets_what_it_declares(reward, function, expected):
    assert values(reward(function), "2", "two") == expected


def test_async_answers_to_a_task_wait_together(reward):
    text = """
        import asyncio
        waiting = []
        async def score(text):
            waiting.append(text)
            while len(waiting) < 3:  # for ever, one after another
                await asyncio.sleep(0)
            return len(waiting)
    """

    assert values(reward(text), "a", "b", "c") == [3, 3, 3]


def test_an_async_function_works_where_an_event_loop_runs_already(reward):
    import asyncio

    built = reward("async def score(text): return len(text)")

    async def notebook():
        return values(built, "abc")

    assert asyncio.run(notebook()) == [3]


def test_its_value_is_also_kept_under_its_name(reward):
    assert reward("def brief(text): return -len(text)", "brief").score(answers("abc"))[0].parts == {"brief": -3.0}


def test_what_lies_beside_the_file_may_be_imported(reward, tmp_path):
    (tmp_path / "weights_of_score.py").write_text("FACTOR = 5")

    assert values(reward("from weights_of_score import FACTOR\ndef score(text): return FACTOR"), "a") == [5]


def test_a_file_is_executed_once_until_it_changes(reward):
    text = "calls = []\ndef score(text):\n    calls.append(text)\n    return len(calls)"

    assert values(reward(text), "a") + values(reward(text), "a") == [1, 2]
    assert values(reward(text.replace("len(calls)", "len(calls)*10")), "a") == [10]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("def score(text):\n    return helper(text)\ndef helper(text):\n    return 1 / 0", r"my_reward.py:4: score\(\) raised ZeroDivisionError: division by zero, for task 'train-1'"),
        ("def score(text): return None", r"my_reward.py:1: score\(\) returned None for task 'train-1'; expected a finite number"),
        ("def score(text): return '1'", "returned '1' .* expected a finite number"),
        ("def score(text): return float('nan')", "returned nan .* expected a finite number"),
        ("def score(text): return [1.0]", r"returned \[1.0\] .* expected a finite number"),
        ("\n\ndef score(texts): return [1.0]", r"my_reward.py:3: score\(\) returned 1 values .* expected 2, one for each text"),
        ("def score(texts): return 1.0", "returned 1.0 .* expected 2 numbers, one for each text"),
        ("def score(texts): return [1.0, None]", "returned None .* expected a finite number for text 1"),
        ("def score(texts): return {'a': 1, 'b': 2}", "expected 2 numbers"),
        ("async def score(text): raise KeyError('x')", "my_reward.py:1: score.* raised KeyError"),
        ("def score(text, levle): return 1", "parameter 'levle' is nothing that is known of a task. Expected some of: completion, level,"),
        ("def score(answer): return 1", "'answer' could be what the policy said or the right answer: call it text, or reference"),
        ("def score(reference): return 1", "it takes no answer: declare a parameter text"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_function_names_its_file_and_line(reward, function, says):
    built = reward(function)

    with pytest.raises((TypeError, ValueError, RuntimeError), match=says):
        built.score(answers("a", "b"))


def test_a_function_of_many_may_be_said_to_take_one(reward):
    with pytest.raises(TypeError, match="'texts' is nothing that is known of a task; batch is false"):
        reward("def score(texts): return 1", batch=False).score(answers("a"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nobody_has_this_module", r"cannot be imported: .*my_reward.py:1: ModuleNotFoundError"),
        ("x = 1\nraise ValueError('early')", "my_reward.py:2: ValueError: early"),
        ("other = 1", "has no function 'score'"),
        ("score = 1", "has no function 'score'"),
    ],
)
def test_a_file_that_cannot_be_imported_says_where(reward, text, says):
    with pytest.raises(ConfigError, match=says):
        reward(text)


FILE = """
name: sums
environment: {use: questions, path: sums.jsonl, match: number, eval_share: 0.5}
policy: {use: causal_lm, model: {preset: tiny, hidden: 16, layers: 1, heads: 2, mlp: 32}}
recipe: grpo
rewards: [{use: function, path: "my_reward.py:score"}]
schedule: {steps: 1, tasks_per_step: 1}
sampling: {max_tokens: 2}
evaluation: {tasks: 1, samples: 1, first: false}
tracking: {enabled: false}
"""
REWARD = """
from pathlib import Path
import beside_it
with Path(__file__).with_name("imported").open("a") as file:
    file.write("x")

def score(text, reference, level):
    return float(len(text))
"""


@pytest.fixture
def asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sums.yaml").write_text(FILE)
    rows = [{"prompt": f"{n}+1?", "answer": n + 1, "level": n} for n in range(4)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "my_reward.py").write_text(REWARD)
    (tmp_path / "beside_it.py").write_text("VALUE = 1\n")
    before = list(sys.path)
    yield lambda *arguments: CliRunner().invoke(cli.app, list(map(str, arguments)))
    sys.path[:] = before
    sys.modules.pop("beside_it", None)


def test_planning_parses_the_file_and_keeps_its_absolute_path(asked, tmp_path):
    done = asked("plan", "sums.yaml", "--json")

    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    assert list(plan["code"]) == [f"{tmp_path}/my_reward.py"]
    assert next(iter(plan["arms"].values()))["rewards"][0]["path"] == f"{tmp_path}/my_reward.py:score"
    assert not (tmp_path / "imported").exists()


def test_run_says_what_it_imports_and_resume_refuses_what_changed(asked, tmp_path, monkeypatch):
    done = asked("run", "sums.yaml", "--local")
    [run] = (tmp_path / "runs").iterdir()
    monkeypatch.chdir(tmp_path / "runs")  # from anywhere

    assert done.exit_code == 0, done.output
    assert f"imports {tmp_path}/my_reward.py, which the experiment names" in done.stderr
    assert (tmp_path / "imported").read_text() == "x"
    for changed in ("beside_it.py", "my_reward.py"):
        (tmp_path / changed).write_text((tmp_path / changed).read_text() + "# changed\n")
        refused = asked("resume", run, "--local")
        assert refused.exit_code == 2, changed
        assert f"{tmp_path}/my_reward.py: was" in refused.stderr
        assert "--accept-changes" in refused.stderr
        assert asked("resume", run, "--local", "--accept-changes").exit_code == 0


def test_a_function_that_asks_for_no_column_is_refused_before_anything_runs(asked, tmp_path):
    (tmp_path / "my_reward.py").write_text("def score(text, levle): return 1.0")

    done = asked("run", "sums.yaml", "--local")

    assert done.exit_code == 2
    assert "rewards.0: " in done.stderr
    assert "parameter 'levle' is nothing that is known of a task" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("my_reward.py:scoer", "defines no 'scoer'"),
        ("none.py:score", "no file"),
        ("my_reward:score", "expected FILE.py:FUNCTION"),
        ("my_reward.py", "expected FILE.py:FUNCTION"),
        ("sums.jsonl:score", "expected FILE.py:FUNCTION"),
    ],
)
def test_what_is_no_function_of_a_file_is_said_when_planning(asked, tmp_path, path, says):
    done = asked("plan", "sums.yaml", f"rewards.0.path={path}")

    assert done.exit_code == 2
    assert "rewards.0" in done.stderr
    assert says in done.stderr
    assert not (tmp_path / "imported").exists()


def test_inside_another_reward_the_same_holds(asked, tmp_path):
    nested = "rewards=[{use: combined, rewards: [{use: function, path: 'my_reward.py:score'}]}]"

    plan = json.loads(asked("plan", "sums.yaml", nested, "--json").stdout)

    assert list(plan["code"]) == [f"{tmp_path}/my_reward.py"]
    assert next(iter(plan["arms"].values()))["rewards"][0]["rewards"][0]["path"] == f"{tmp_path}/my_reward.py:score"
    (tmp_path / "my_reward.py").write_text("def score(text, levle): return 1.0")
    assert "parameter 'levle'" in asked("run", "sums.yaml", "--local", nested).stderr


def test_a_worker_with_another_file_plays_nothing(asked, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.runners.named_code._compared", set())
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.plan.write_text(asked("plan", "sums.yaml", "--json").stdout)
    (tmp_path / "my_reward.py").unlink()

    with pytest.raises(PluginContractError, match=r"my_reward.py: driver \w{16}, here absent"):
        run_spec(load_plan(run.path).trials[0], run.path)


def test_a_cluster_is_told_what_its_machines_need(asked, capsys):
    planned = asked("plan", "sums.yaml", "resources.address=ray://head:10001", "--json")

    say_what_is_imported(Plan.from_json(planned.stdout))

    said = " ".join(capsys.readouterr().err.split())
    assert "every machine of the cluster at ray://head:10001 must have the same: files at these paths" in said
