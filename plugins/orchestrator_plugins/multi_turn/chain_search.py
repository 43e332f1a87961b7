"""Chain search: follow links with a search tool, then answer; the smallest world in which a turn is think and act.

Each task hides a chain of entities, e0 to e4, each a pair of letters. The policy is told e0 and a number of hops h and
must answer e_h. A turn is ``ab?cd`` (think ab, search cd) or ``ab!cd`` (think ab, answer cd). Searching an entity
of the chain answers with its link, ``cd>ef``; anything else, a malformed turn too, with ``none``. Links are shown
by searches alone and entities of a chain are distinct, so all but lucky guesses must walk e0, e1, ..., e_h.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from string import ascii_lowercase

from orchestrator.api import Action, Feedback, Messages, Speaks, Split, Task

from .worlds_config import ChainSearchConfig

NOTHING = "none"
_TURN = re.compile(r"([a-z]{2})([?!])([a-z]{2})")
_HELD_OUT = 10  # one chain in so many is for evaluation


class ChainSearch:
    """Chains drawn at random; training and evaluation never share one.

    A task's metadata hold ``chain`` (e0, e1, ...), ``hops`` and ``level`` (the hops again, for curricula).
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: ChainSearchConfig):
        self.config = config
        letters = ascii_lowercase[: config.letters]
        self._entities = [first + second for first in letters for second in letters]

    def tasks(self, split: Split) -> Iterator[Task]:
        """Chains in a fixed order; training is endless unless ``train_tasks`` bounds it."""
        config, split = self.config, Split(split)
        most = config.eval_tasks if split is Split.EVAL else config.train_tasks
        random = Random(f"chain_search {split} {config.seed}")
        index = 0
        while most is None or index < most:
            chain = random.sample(self._entities, config.chain)
            hops = random.choice(config.hops)
            held_out = zlib.crc32(f"{' '.join(chain)} {hops}".encode()) % _HELD_OUT == 0
            if held_out == (split is Split.EVAL):
                yield self._task(f"{split}-{index}", chain, hops)
                index += 1

    def start(self, task: Task, seed: int) -> ChainSearchEpisode:
        """Play one chain; nothing in it is random."""
        return ChainSearchEpisode(task, max_turns=self.config.max_turns)

    def _task(self, name: str, chain: list[str], hops: int) -> Task:
        return Task(
            id=name,
            prompt=_said(f"{chain[0]} {hops}"),
            reference=chain[hops],
            demonstration=self._demonstrate(name, chain, hops),
            metadata={"chain": chain, "hops": hops, "level": hops},
        )

    def _demonstrate(self, name: str, chain: list[str], hops: int) -> tuple[str, ...]:
        """Play an expert that thinks of what it should search or answer, and errs now and then.

        In a turn in which it errs it takes an entity outside the chain for the right one. After a wrong search it
        goes on where it was; a wrong answer ends its play, and so does the limit on turns.
        """
        config = self.config
        random = Random(f"chain_search expert {config.seed} {name} {' '.join(chain)}")
        played, at = [], 0
        while len(played) < config.max_turns:
            entity, errs = chain[at], random.random() < config.expert_error
            while errs and entity in chain:
                entity = random.choice(self._entities)
            played.append(f"{entity}{'!' if at == hops else '?'}{entity}")
            if at == hops:
                break
            at += not errs
        return tuple(played)


class ChainSearchEpisode:
    """One search along one chain; pays 1 for the right answer and nothing else.

    Metrics, at the end: ``correct`` (0 or 1), ``searches`` (turns that searched), ``links`` (searches that found a
    link), ``malformed`` (turns that were neither search nor answer), and ``answer_id`` where an answer was given.
    The limit on turns is a rule of the game: who reaches it has lost, no more would have followed.
    """

    def __init__(self, task: Task, *, max_turns: int):
        self._prompt = task.prompt
        chain: list[str] = list(task.metadata["chain"])
        self._links = dict(pairwise(chain))
        self._right = chain[task.metadata["hops"]]
        self._left = max_turns
        self._searches = self._found = self._malformed = 0

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        self._left -= 1
        turn = _TURN.fullmatch(action.text or "")
        if turn is not None and turn[2] == "!":
            return self._end(turn[3])
        link = None
        if turn is None:
            self._malformed += 1
        else:
            self._searches += 1
            link = self._links.get(turn[3])
            self._found += link is not None
        if not self._left:
            return self._end(None)
        shown = NOTHING if link is None else f"{turn[3]}>{link}"
        return Feedback(observation=_said(shown), reward=0.0, done=False)

    def close(self) -> None:
        pass

    def _end(self, answer: str | None) -> Feedback:
        correct = float(answer == self._right)
        metrics = {
            "correct": correct,
            "searches": float(self._searches),
            "links": float(self._found),
            "malformed": float(self._malformed),
        }
        if answer is not None:
            metrics["answer_id"] = float(zlib.crc32(answer.encode()))
        return Feedback(observation=None, reward=correct, done=True, metrics=metrics)


def _said(text: str) -> Messages:
    return ({"role": "user", "content": text},)
