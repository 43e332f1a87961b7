"""Words and phrases of some games, for models built on the spot that spell everything else letter by letter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise

from orchestrator.api import Action, Observation, Split

from .environment import TextWorld

# Besides the walkthrough: commands that most games refuse, since learners give them all the time.
ASTRAY = ("look", "inventory", "dance", "open", "go north", "go south", "go east", "go west", "take lamp", "open door")
_RUNS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)*")  # nothing is joined across names, numbers and punctuation
_SHORTEST = 2


def texts_of(environment: TextWorld, games: int) -> Iterator[str]:
    """All that is read and said in plays of the first training games: their walkthroughs, and a few vain commands."""
    for task in islice(environment.tasks(Split.TRAIN), games):
        episode = environment.start(task, 0)
        yield _content(episode.open())
        walkthrough = task.demonstration or ()
        vain = ASTRAY[: max(0, environment.config.turns - len(walkthrough))]
        for command in (*vain, *walkthrough):
            feedback = episode.step(Action(tokens=(0,), logprobs=(0.0,), text=command))
            yield command
            if feedback.observation is not None:
                yield _content(feedback.observation)
        episode.close()


def words_of(texts: Iterable[str], most: int) -> list[str]:
    """The words of some texts, and the phrases that shorten them most, joined pair by pair; the most frequent first.

    :param most: entries at most; words come before phrases, and are left out only where they alone are more
    """
    runs = Counter(run for text in texts for run in _RUNS.findall(text))
    split = {run: tuple(run.split(" ")) for run in runs}
    counts = Counter(word for run, times in runs.items() for word in split[run] * times if len(word) >= _SHORTEST)
    chosen = [word for word, _ in counts.most_common(most)]
    while len(chosen) < most:
        pairs: Counter[tuple[str, str]] = Counter()
        for run, times in runs.items():
            for pair in pairwise(split[run]):
                pairs[pair] += times
        if not pairs:
            break
        pair, times = pairs.most_common(1)[0]
        if times < 2:
            break
        chosen.append(" ".join(pair))
        split = {run: _joined(parts, pair) for run, parts in split.items()}
    return chosen


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] = " ".join(pair)
        else:
            joined.append(part)
    return tuple(joined)


def _content(observation: Observation) -> str:
    assert isinstance(observation, tuple)
    return "\n".join(message["content"] for message in observation)
