"""Generated games in a folder that trials share: made once, side by side, kept by version, options and seed."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from .pool import Ask, GameError, Pool

LAYOUT = 1  # of a cached game's folder; part of its place
AHEAD = 2  # games made at once for each process
BARREN = 32  # seeds in a row that give no game after which there is nothing to find
PROGRESS_SECONDS = 10.0  # between messages
RETRY_SECONDS = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """One generated game, and what its generator knows of it."""

    seed: int
    file: Path
    objective: str
    walkthrough: tuple[str, ...]
    max_score: int
    opening: str  # the room at the start, as the game prints it
    inventory: str


class Games:
    """The games of one setting of the generator."""

    def __init__(self, generator: Mapping[str, object], cache: Path, pool: Pool, make_seconds: float):
        """Look for games in a sub-folder of ``cache`` named after the library's version and the setting."""
        library = f"textworld-{version('textworld')}"
        words = json.dumps([LAYOUT, library, generator], sort_keys=True)
        self.folder = cache.expanduser().absolute() / f"{library}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"
        self._generator, self._pool, self._make_seconds = dict(generator), pool, make_seconds
        self._known: dict[int, Game | None] = {}  # None: this seed gives no game
        self._made, self._said = 0, time.monotonic()

    def take(self, seeds: Iterable[int]) -> Iterator[Game]:
        """The games of some seeds in order, without the seeds that give none; missing ones are made some ahead.

        :raises GameError: a game cannot be made, tried twice, or too many seeds in a row give none
        """
        barren, left = 0, iter(seeds)
        while window := list(islice(left, AHEAD * self._pool.size)):
            self._make([seed for seed in window if self._find(seed) is _MISSING])
            for seed in window:
                game = self._find(seed)
                barren = barren + 1 if game is None else 0
                if barren == BARREN:
                    raise GameError(
                        f"{barren} seeds in a row, the last of them {seed}, gave no game for {json.dumps(self._generator)}: "
                        f"{self._why(seed)} Ask for a shorter quest or a larger world"
                    )
                if game is not None:
                    yield game

    def _make(self, seeds: list[int]) -> None:
        """Generate what is missing; what other trials are making is waited for, what fails is tried once more."""
        if seeds:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "generator.json").write_text(json.dumps(self._generator))
        failed: set[int] = set()
        while seeds:
            batch, seeds = seeds[: self._pool.size], seeds[self._pool.size :]
            later = []
            for seed, answer in zip(batch, self._pool.run([self._ask(seed) for seed in batch]), strict=True):
                if isinstance(answer, GameError):
                    if seed in failed:
                        raise answer
                    logger.warning("%s; it is tried once more", answer)
                    failed.add(seed)
                    later.append(seed)
                elif answer.get("busy"):
                    later.append(seed)
            seeds += later
            self._made += len(batch) - len(later)
            if time.monotonic() - self._said > PROGRESS_SECONDS:
                self._said = time.monotonic()
                logger.info("%s games made so far, the last of seed %s (%s)", self._made, batch[-1], self.folder)
            if len(later) == len(batch):
                time.sleep(RETRY_SECONDS)

    def _ask(self, seed: int) -> Ask:
        request = {"do": "make", "options": self._generator, "seed": seed, "folder": str(self.folder)}
        return Ask(message=request, limit=self._make_seconds, what=f"generating the game of seed {seed}")

    def _find(self, seed: int) -> Any:
        if seed not in self._known:
            try:
                about = self._about(seed)
            except FileNotFoundError:
                return _MISSING
            file = self.folder / str(seed) / "game.z8"
            usable = None if "unusable" in about else about | {"walkthrough": tuple(about["walkthrough"])}
            self._known[seed] = None if usable is None else Game(seed=seed, file=file, **usable)
        return self._known[seed]

    def _about(self, seed: int) -> dict[str, Any]:
        return json.loads((self.folder / str(seed) / "about.json").read_text())

    def _why(self, seed: int) -> str:
        return f"{self._about(seed)['unusable']}."


_MISSING = object()
