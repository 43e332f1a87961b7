"""Plays of the worlds of several turns, for the tests beside this file."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from orchestrator.api import Action, Finish, Split, load_registry

REGISTRY = load_registry(["multi_turn"])
SWEEPS = Path(__file__).parents[2] / "sweeps"


def build(name, **options):
    return REGISTRY.build("environment", name, options)


def said(text, finish=Finish.STOP):
    return Action(tokens=(), logprobs=(), text=text, finish=finish)


def shown(feedback):
    return feedback.observation[0]["content"]


def play(world, task, texts):
    """Play texts to the end; returns what the environment answered to each."""
    episode = world.start(task, seed=0)
    assert episode.open() == task.prompt
    answers = []
    for text in texts:
        assert not (answers and answers[-1].done), "played on after the end"
        answers.append(episode.step(said(text)))
    episode.close()
    return answers


def demonstrated(world, count, split=Split.TRAIN):
    """Tasks with the answers to their demonstrations."""
    return [(task, play(world, task, task.demonstration)) for task in islice(world.tasks(split), count)]
