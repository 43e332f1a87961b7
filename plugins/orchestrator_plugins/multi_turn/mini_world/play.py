"""The rules: what a command does to a world, what is seen, how far the quest is, and what an expert would do next."""

from __future__ import annotations

from .generation import Step, World
from .words import CANNOT, DIRECTIONS, DOOR, GOAL, HAVE, NOW, OK, OPEN, SEE, SHUT, TO, UNKNOWN, key_of

YOU = "you"  # the place of what is carried


class Play:
    """One play of a world. Commands change it; nothing else does."""

    def __init__(self, world: World):
        self.world = world
        self.room = world.start
        self.places = dict(world.objects)
        self.locks = dict(world.locks)
        self.reached = 0  # sub-goals, in order

    @property
    def won(self) -> bool:
        """Whether the last sub-goal is reached."""
        return self.reached == len(self.world.quest)

    def do(self, words: list[str]) -> str:
        """Carry out a command; returns ``ok``, ``cannot`` (nothing happened) or ``unknown`` (no such command)."""
        result = self._carry_out(words)
        while not self.won and self._holds(self.world.quest[self.reached]):
            self.reached += 1
        return result

    def _carry_out(self, words: list[str]) -> str:
        match words:
            case ["go", direction] if direction in DIRECTIONS:
                return self._go(direction)
            case ["open", thing] if thing in self.locks:
                return self._change(thing, SHUT, OPEN)
            case ["unlock", thing, "with", key] if thing in self.locks and key in self.places:
                lock = self.locks[thing]
                fits = lock not in (OPEN, SHUT) and key_of(lock) == key and self.places[key] == YOU
                return self._change(thing, lock, SHUT) if fits else CANNOT
            case ["take", thing] if thing in self.places:
                return self._move(thing, YOU) if self.places[thing] != YOU and self.visible(thing) else CANNOT
            case ["put", thing, "on", top] if thing in self.places and top in self.world.supporters:
                return self._put(thing, top, self.world.supporters[top] == self.room)
            case ["put", thing, "in", box] if thing in self.places and box in self.world.containers:
                return self._put(thing, box, self.world.containers[box] == self.room and self.locks[box] == OPEN)
        return UNKNOWN if not _spoken(words) else CANNOT

    def _go(self, direction: str) -> str:
        room = self.world.exits[self.room].get(direction)
        if room is None or (self.locks.get(DOOR, OPEN) != OPEN and self._between(room)):
            return CANNOT
        self.room = room
        return OK

    def _change(self, thing: str, before: str, after: str) -> str:
        if not self._at(thing) or self.locks[thing] != before:
            return CANNOT
        self.locks[thing] = after
        return OK

    def _put(self, thing: str, place: str, possible: bool) -> str:
        return self._move(thing, place) if possible and self.places[thing] == YOU else CANNOT

    def _move(self, thing: str, place: str) -> str:
        self.places[thing] = place
        return OK

    # --- what is so ---------------------------------------------------------------------------------------

    def home(self, place: str) -> str:
        """The room a place is in."""
        if place == YOU:
            return self.room
        return self.world.containers.get(place) or self.world.supporters.get(place) or place

    def visible(self, thing: str) -> bool:
        """Whether an object can be seen: in this room and not in something shut, or carried."""
        place = self.places[thing]
        return self.home(place) == self.room and (place not in self.locks or self.locks[place] == OPEN)

    def _at(self, thing: str) -> bool:
        """Whether a container or the door can be reached."""
        if thing == DOOR:
            return self.world.door is not None and self.room in self.world.door
        return self.world.containers[thing] == self.room

    def _between(self, room: str) -> bool:
        """Whether the door stands between this room and that one."""
        return self.world.door is not None and {self.room, room} == set(self.world.door)

    def _holds(self, step: Step) -> bool:
        """Whether a sub-goal is reached."""
        match step.verb:
            case "go":
                return self.room == step.other
            case "open":
                return self.locks[step.thing] == OPEN
            case "unlock":
                return self.locks[step.thing] in (OPEN, SHUT)
            case "take":
                return self.places[step.thing] == YOU
        return self.places[step.thing] == step.other

    # --- what is said -------------------------------------------------------------------------------------

    def tell(self, result: str | None = None) -> str:
        """Put into words: the last result (at first the goal), room, furniture, objects, exits and what is carried.

        At most 25 words with twelve objects, the goal not counted: furniture is one container and one top a room, and
        what is shut holds back at least one object.
        """
        goal = self.world.quest[-1].goal()
        words = [f"{GOAL} {goal} {NOW}" if result is None else result, self.room]
        seen = [*self._furniture(), *(name for name, at in self.places.items() if at != YOU and self.visible(name))]
        exits = [
            word for direction, room in self.world.exits[self.room].items() for word in self._exit(direction, room)
        ]
        carried = [name for name, place in self.places.items() if place == YOU]
        for word, things in ((SEE, seen), (TO, exits), (HAVE, carried)):
            words += [word, *things] if things else []
        return " ".join(words)

    def _furniture(self) -> list[str]:
        found = [name for name, room in self.world.supporters.items() if room == self.room]
        for name, room in self.world.containers.items():
            if room == self.room:
                found += [name] if self.locks[name] == OPEN else [name, self.locks[name]]
        return found

    def _exit(self, direction: str, room: str) -> list[str]:
        if not self._between(room):
            return [direction]
        return [direction, DOOR] if self.locks[DOOR] == OPEN else [direction, DOOR, self.locks[DOOR]]

    # --- what an expert would do --------------------------------------------------------------------------

    def advice(self) -> str:
        """The command that comes next on the shortest way from here to the end of the quest."""
        left = self.world.quest[self.reached :]
        step = next((step for step in left if step.verb != "go"), left[-1])
        needed = step.other if step.verb == "unlock" else step.thing if step.verb == "put" else None
        if needed is not None and self.places[needed] != YOU:
            step = Step("take", needed)
        room = self._room_of(step)
        if room != self.room:
            return f"go {self.world.way(self.room, room)[0][0]}"
        return step.command()

    def _room_of(self, step: Step) -> str:
        """Where a step is done."""
        match step.verb:
            case "go":
                return step.other
            case "take":
                return self.home(self.places[step.thing])
            case "put":
                return self.home(step.other)
        if step.thing != DOOR:
            return self.world.containers[step.thing]
        assert self.world.door is not None
        near, far = self.world.door
        return far if self.room == far else near


def _spoken(words: list[str]) -> bool:
    """Whether words have the form of a command, whatever they name."""
    match words:
        case [("go" | "open" | "take"), _]:
            return True
        case ["unlock", _, "with", _] | ["put", _, ("on" | "in"), _]:
            return True
    return False
