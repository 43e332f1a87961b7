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

from orchestrator.api import Action, Feedback, Finish, Messages, Speaks, Split, Task

from .ranges import drawn, wanted_range
from .worlds_config import ChainSearchConfig

NOTHING = "none"
_TURN = re.compile(r"([a-z]{2})([?!])([a-z]{2})")


class ChainSearch:
    """Chains drawn at random; ranges of tasks share none.

    A task's metadata hold ``chain`` (e0, e1, ...), ``hops``, and ``level`` for curricula (``hops-2``).
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: ChainSearchConfig):
        self.config = config
        letters = ascii_lowercase[: config.letters]
        self._entities = [first + second for first in letters for second in letters]

    def tasks(self, split: Split) -> Iterator[Task]:
        """Chains in a fixed order; training is endless unless ``train_tasks`` bounds it."""
        chosen = drawn(self.config, split, self._chains(), lambda drawn: f"{' '.join(drawn[0])} {drawn[1]}")
        name = wanted_range(self.config, split)
        for index, (chain, hops) in enumerate(chosen):
            yield Task(
                id=f"chain-{name}-{index}",
                prompt=_said(f"{chain[0]} {hops}"),
                reference=chain[hops],
                demonstration=self._demonstrate(chain, hops),
                metadata={"chain": chain, "hops": hops, "level": f"hops-{hops}"},
            )

    def start(self, task: Task, seed: int) -> ChainSearchEpisode:
        """Play one chain; nothing in it is random."""
        return ChainSearchEpisode(self.config, task)

    def _chains(self) -> Iterator[tuple[list[str], int]]:
        random = Random(f"chain_search {self.config.seed}")
        while True:
            yield random.sample(self._entities, self.config.chain), random.choice(self.config.hops)

    def _demonstrate(self, chain: list[str], hops: int) -> tuple[str, ...]:
        """Play an expert that thinks of what it should search or answer, and errs now and then.

        In a turn in which it errs it takes an entity outside the chain for the right one. After a wrong search it
        goes on where it was; a wrong answer ends its play, and so does the limit on turns.
        """
        config = self.config
        random = Random(f"chain_search expert {config.seed} {' '.join(chain)} {hops}")
        played: list[str] = []
        at = 0
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

    Metrics: ``correct`` (0 or 1), ``max_score`` (1), ``searches`` (turns that searched), ``links`` (searches that
    found a link), ``malformed`` (turns that were neither search nor answer), and ``answer_id`` once an answer is given.
    The limit on turns is a rule of the game: who reaches it has lost, no more would have followed.
    """

    def __init__(self, config: ChainSearchConfig, task: Task):
        assert isinstance(task.prompt, tuple)
        self._prompt = task.prompt
        chain: list[str] = list(task.metadata["chain"])
        self._links = dict(pairwise(chain))
        self._right = chain[task.metadata["hops"]]
        self._left = config.max_turns
        self._cut_ends = config.cut_action == "ends"
        self._metrics = {"correct": 0.0, "max_score": 1.0, "searches": 0.0, "links": 0.0, "malformed": 0.0}

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        self._left -= 1
        cut = action.finish is Finish.LENGTH
        turn = None if cut else _TURN.fullmatch(action.text or "")
        if turn is not None and turn[2] == "!":
            return self._answer(turn[3])
        shown = NOTHING
        if turn is None:
            self._metrics["malformed"] += 1
        else:
            link = self._links.get(turn[3])
            self._metrics["searches"] += 1
            self._metrics["links"] += link is not None
            if link is not None:
                shown = f"{turn[3]}>{link}"
        if not self._left or (cut and self._cut_ends):
            return Feedback(observation=None, reward=0.0, done=True, metrics=dict(self._metrics))
        return Feedback(observation=_said(shown), reward=0.0, done=False, metrics=dict(self._metrics))

    def close(self) -> None:
        pass

    def _answer(self, answer: str) -> Feedback:
        correct = float(answer == self._right)
        self._metrics |= {"correct": correct, "answer_id": float(zlib.crc32(answer.encode()))}
        return Feedback(observation=None, reward=correct, done=True, metrics=dict(self._metrics))


def _said(text: str) -> Messages:
    return ({"role": "user", "content": text},)
