"""One process of the pool: generates and plays games, a JSON line for each request and each answer.

Run as a script (``python -P worker.py``). It imports the library alone and nothing of this project, so that it starts
quickly and is small. It ends itself, with whatever it has started, when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import select
import shutil
import signal
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

IDLE_GAMES = 128  # interpreters kept for the next plays, of the same game at best
CHANCE = 1  # seed of a game's own dice, so that a play can be repeated


class Games:
    """Makes games, and plays those that are open."""

    def __init__(self) -> None:
        # Here, so that requests are read (and the parent watched) while it loads.
        import textworld
        from textworld.envs import JerichoEnv
        from textworld.envs.wrappers.tw_inform7 import Inform7Data

        infos = textworld.EnvInfos(feedback=True, inventory=True, won=True, lost=True)
        self._interpreter = lambda: Inform7Data(JerichoEnv(infos))  # as textworld.start, without the game's logic
        warnings.simplefilter("ignore")
        self._library = textworld
        self._open: dict[int, tuple[str, Any]] = {}
        self._idle: OrderedDict[int, tuple[str, Any]] = OrderedDict()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one request asks for."""
        for name in request.get("drop", ()):
            self._put_away(name)
        if request["do"] == "make":
            return self.make(request["options"], request["seed"], Path(request["folder"]))
        return self.play(request)

    def play(self, request: dict[str, Any]) -> dict[str, Any]:
        """Give one command to an open game; with ``file``, open it first and repeat the commands of ``history``."""
        name = request["game"]
        if "file" in request:
            self._put_away(name)
            game = self._started(request["file"])
            game.reset()
            for command in request["history"]:
                game.step(command)
            self._open[name] = (request["file"], game)
        return self.step(self._open[name][1], request["command"])

    def step(self, game: Any, command: str) -> dict[str, Any]:
        state, score, _ = game.step(command)
        return {
            "text": state["feedback"],
            "inventory": state["inventory"],
            "score": int(score),
            "won": bool(state["won"]),
            "lost": bool(state["lost"]),
        }

    def make(self, options: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
        """Generate one game into ``folder/<seed>``, unless another process is at it or has done it."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{seed}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return {"busy": True}
            if not (folder / str(seed)).exists():
                self._generate(options, seed, folder)
            (folder / f"{seed}.lock").unlink(missing_ok=True)
        return {"made": True}

    def _generate(self, options: dict[str, Any], seed: int, folder: Path) -> None:
        """Make a game in a folder of its own, which takes its place once it is complete."""
        from textworld.generator import QuestGenerationError, compile_game

        aside = folder / f".{seed}.{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        settings = self._library.GameOptions()
        settings.seeds = seed
        settings.path, settings.force_recompile = str(aside / "game.z8"), True
        self._library.g_rng.set_seed(seed)
        try:
            game = (_custom if options["kind"] == "custom" else _simple)(options, settings)
        except QuestGenerationError as error:
            about = {"unusable": f"no quest could be generated: {error}"}
        else:
            compile_game(game, settings)
            (aside / "game.ni").unlink()
            about = self._about(game, str(aside / "game.z8"))
        (aside / "about.json").write_text(json.dumps(about))
        try:
            aside.rename(folder / str(seed))
        except OSError:  # another machine that shares the folder was quicker
            if not (folder / str(seed) / "about.json").is_file():
                raise
            shutil.rmtree(aside)

    def _about(self, game: Any, file: str) -> dict[str, Any]:
        infos = self._library.EnvInfos(feedback=True, description=True, inventory=True)
        with contextlib.closing(self._library.start(file, infos)) as play:
            play.seed(CHANCE)
            state = play.reset()
            return {
                "objective": game.objective,
                "walkthrough": list(game.metadata["walkthrough"]),
                "max_score": int(game.max_score),
                "opening": state["description"],
                "inventory": state["inventory"],
            }

    def _started(self, file: str) -> Any:
        """An interpreter with a game in it; loading one that is there costs half of starting one."""
        for name, (of, game) in self._idle.items():
            if of == file:
                del self._idle[name]
                return game
        game = self._idle.popitem(last=False)[1][1] if len(self._idle) > IDLE_GAMES // 2 else self._interpreter()
        game.load(file)
        game.seed(CHANCE)
        return game

    def _put_away(self, name: int) -> None:
        if name in self._open:
            self._idle[name] = self._open.pop(name)
            if len(self._idle) > IDLE_GAMES:
                self._idle.popitem(last=False)[1][1].close()


def _custom(options: dict[str, Any], settings: Any) -> Any:
    """As ``tw-make custom --world-size --nb-objects --quest-length --theme [--only-last-action]``."""
    from textworld.generator import make_game

    settings.nb_rooms, settings.nb_objects = options["rooms"], options["objects"]
    settings.quest_length = options["quest_length"]
    settings.grammar.theme = options["theme"]
    settings.grammar.only_last_action = options["goal"] == "brief"
    game = make_game(settings)
    if options["goal"] == "none":
        game.objective = ""
    return game


def _simple(options: dict[str, Any], settings: Any) -> Any:
    """As ``tw-make tw-simple --rewards --goal``."""
    from textworld.challenges import CHALLENGES

    _, make, _ = CHALLENGES["tw-simple"]
    return make({"rewards": options["density"], "goal": options["goal"], "test": False}, settings)


def main() -> NoReturn:
    """Answer requests until the parent is gone."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the interpreter prints: not into the answers
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(requests, os.getppid()), daemon=True).start()
    games = Games()
    while True:
        line = requests.get()
        try:
            answer = games.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read(requests: queue.Queue[bytes], parent: int) -> None:
    """Pass requests on; end everything when there can be no more, whatever the games are doing."""
    rest = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], 1.0)[0]:
            continue
        read = os.read(0, 1 << 16)
        if not read:
            break
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            requests.put(line)
    shutil.rmtree(os.environ.get("TEXTWORLD_POOL_FOLDER") or "/nonexistent", ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with compilers that are still at work
    os._exit(0)


if __name__ == "__main__":
    main()
