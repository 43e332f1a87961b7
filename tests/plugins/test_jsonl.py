"""Transcripts: what was said is readable, and a resumed trial doubles nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from orchestrator_plugins.jsonl import transcripts

from orchestrator.api import Action, Features, Rollout, RolloutGroup, Score, Stop, Task, Turn
from orchestrator.testing import make_settings, make_trial


def _trial(directory, wanted=4):
    directory.mkdir(exist_ok=True)
    return make_trial(directory, make_settings(tracking={"transcripts": wanted}))


def _group(name, *values):
    rollouts = tuple(
        Rollout(
            task_id=name,
            index=index,
            seed=index,
            turns=(
                Turn(
                    observation=({"role": "user", "content": f"make {name}"},),
                    action=Action(tokens=(1, 2), logprobs=(0.0, 0.0), text=f"3 * {index}"),
                    reward=value,
                ),
            ),
            metrics={"correct": value},
        )
        for index, value in enumerate(values)
    )
    scores = tuple(Score(value=value, parts={"exact": value}) for value in values)
    return RolloutGroup(task=Task(id=name, reference="6"), rollouts=rollouts, scores=scores)


def _failed(name):
    rollout = Rollout(task_id=name, index=0, seed=0, turns=(), stop=Stop.ERROR, error="ValueError: no")
    return RolloutGroup(task=Task(id=name), rollouts=(rollout,))


def _lines(directory):
    return [json.loads(line) for line in (directory / "rollouts.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _fresh_process():
    transcripts._last_step.clear()


def test_a_line_holds_texts_scores_and_reasons(tmp_path):
    transcripts.append(_trial(tmp_path), 1, [_group("x", 1.0, 0.0)])

    (line,) = _lines(tmp_path)

    assert (line["step"], line["task"], line["reference"]) == (1, "x", "6")
    assert [r["score"] for r in line["rollouts"]] == [1.0, 0.0]
    first = line["rollouts"][0]
    assert first["parts"] == {"exact": 1.0}
    assert (first["stop"], first["error"], first["metrics"]) == ("done", None, {"correct": 1.0})
    assert first["turns"] == [
        {"observation": [{"role": "user", "content": "make x"}], "action": "3 * 0", "finish": "stop", "reward": 1.0}
    ]


def test_so_many_groups_are_written_and_failures_beside_them(tmp_path):
    groups = [_group(name, 1.0) for name in "abc"] + [_failed("d")]

    transcripts.append(_trial(tmp_path, wanted=2), 1, groups)

    lines = _lines(tmp_path)
    assert [line["task"] for line in lines] == ["a", "b", "d"]
    assert lines[2]["rollouts"][0] | {"score": None, "error": "ValueError: no"} == lines[2]["rollouts"][0]


def test_none_are_written_when_none_are_wanted(tmp_path):
    transcripts.append(_trial(tmp_path, wanted=0), 1, [_group("x", 1.0)])

    assert not (tmp_path / "rollouts.jsonl").exists()


def test_feature_policies_leave_their_actions(tmp_path):
    seen = Features(values=np.zeros(2, dtype=np.float32), legal=np.ones(2, dtype=bool))
    turn = Turn(observation=seen, action=Action(tokens=(1,), logprobs=(0.0,)))
    group = RolloutGroup(
        task=Task(id="x"), rollouts=(Rollout(task_id="x", index=0, seed=0, turns=(turn,)),), scores=(Score(value=1.0),)
    )

    transcripts.append(_trial(tmp_path), 1, [group])

    assert _lines(tmp_path)[0]["rollouts"][0]["turns"] == [
        {"observation": None, "action": [1], "finish": "stop", "reward": 0.0}
    ]


def test_steps_played_again_after_a_crash_are_written_once(tmp_path):
    for step in (1, 2, 3):
        transcripts.append(_trial(tmp_path), step, [_group(f"old-{step}", 1.0)])
    with (tmp_path / "rollouts.jsonl").open("a") as file:
        file.write('{"step": 4, "ta')
    transcripts._last_step.clear()  # another process

    for step in (2, 3, 4):  # from the checkpoint of step 1
        transcripts.append(_trial(tmp_path), step, [_group(f"new-{step}", 1.0)])

    assert [(line["step"], line["task"]) for line in _lines(tmp_path)] == [
        (1, "old-1"),
        (2, "new-2"),
        (3, "new-3"),
        (4, "new-4"),
    ]


def test_a_trial_restarted_in_the_same_process_is_written_once(tmp_path):
    for step in (1, 2, 3, 2, 3):
        transcripts.append(_trial(tmp_path), step, [_group("x", 1.0)])

    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3]
