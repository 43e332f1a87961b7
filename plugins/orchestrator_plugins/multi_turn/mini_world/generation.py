"""Worlds with a quest of an exact length, built from the start so that every step is needed.

A quest is a chain: take an item, open with it the next container or door, take what was behind, and so on, walking in
between. Rooms form a tree, each lock has a key of its own, and each item but the first is behind the lock before it;
so no step can be left out and the shortest solution is the quest itself. Nothing can be shut, locked or lost: whatever
is done, the quest can still be finished.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random

from .words import CONTAINERS, DIRECTIONS, DOOR, LOCKS, OBJECTS, OPEN, ROOMS, SHUT, SUPPORTERS, key_of

DOOR_SHARE = 0.35
"""Share of the worlds of two rooms or more that are tried with a door on the quest's way."""

CONTAINER_SHARE, SUPPORTER_SHARE = 0.7, 0.6
"""Share of the rooms that have a container, and something to put things on; a world has at least one of each."""

FINISH_SHARE = 0.5
"""Share of the quests that end by putting the last item somewhere, where the length allows it."""

ATTEMPTS = 2000
"""Worlds tried before a size is called impossible; all sizes that are possible take a few dozen at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """One sub-goal and the command that reaches it."""

    verb: str
    thing: str  # a direction, a container, the door or an object
    other: str = ""  # the room reached, the key, or what the object is put on

    def command(self) -> str:
        """The command in words."""
        if self.verb == "unlock":
            return f"unlock {self.thing} with {self.other}"
        if self.verb == "put":
            return f"put {self.thing} on {self.other}"
        return f"{self.verb} {self.thing}"

    def goal(self) -> str:
        """What is to be achieved, in words that give no way."""
        if self.verb == "go":
            return f"go {self.other}"
        return self.command() if self.verb == "put" else f"{self.verb} {self.thing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where everything is at the start, and the quest. Names are unique, so a place is a room's or a thing's name."""

    start: str
    exits: dict[str, dict[str, str]]  # room to direction to room
    containers: dict[str, str]  # container to room
    supporters: dict[str, str]  # supporter to room
    door: tuple[str, str] | None  # the two rooms it stands between
    locks: dict[str, str]  # container or door to open, shut or its lock
    objects: dict[str, str]  # object to place
    quest: tuple[Step, ...]

    def way(self, start: str, end: str) -> list[tuple[str, str]]:
        """Directions and rooms from one room to another: the only way there is."""
        return _way(self.exits, start, end)


def generate(random: Random, *, rooms: int, objects: int, quest_length: int) -> World:
    """Make a world whose shortest solution takes exactly ``quest_length`` commands.

    :raises ValueError: when there is no such world
    """
    for _ in range(ATTEMPTS):
        world = _Builder(random, rooms, objects, quest_length).build()
        if world is not None:
            return world
    raise ValueError(
        f"no quest of {quest_length} steps fits into rooms {rooms} with objects {objects}; a shorter quest, more rooms "
        "or more objects (a locked container takes a key) would"
    )


class _Builder:
    """One attempt at a world; everything is drawn forwards along the quest."""

    def __init__(self, random: Random, rooms: int, objects: int, length: int):
        self.random, self.length = random, length
        self.exits = _map(random, random.sample(ROOMS, rooms))
        self.rooms = list(self.exits)
        self.containers = self._furniture(CONTAINERS, CONTAINER_SHARE)
        self.supporters = self._furniture(SUPPORTERS, SUPPORTER_SHARE)
        self.nouns = random.sample(OBJECTS, len(OBJECTS))
        self.spare_locks = random.sample(LOCKS, len(LOCKS))
        self.spare_objects = objects
        self.places: dict[str, str] = {}
        self.locks: dict[str, str] = {}
        self.steps: list[Step] = []
        self.at = self.start = random.choice(self.rooms)
        self.door: tuple[str, str] | None = None
        self.open_to = set(self.rooms)  # rooms that can be reached by now
        if rooms > 1 and random.random() < DOOR_SHARE:
            self._place_door()

    def build(self) -> World | None:
        """Draw until the quest is long enough; None when it cannot be or ends with a step that is not needed."""
        held: str | None = None
        while len(self.steps) < self.length:
            if held is not None and self._finished(held):
                break
            held = self._stage(held)
            if held is None:
                break
        if len(self.steps) < self.length or not self._needed():
            return None
        self._distract()
        return World(
            start=self.start,
            exits=self.exits,
            containers=self.containers,
            supporters=self.supporters,
            door=self.door,
            locks=self.locks,
            objects=dict(sorted(self.places.items())),
            quest=tuple(self.steps[: self.length]),
        )

    # --- the quest ----------------------------------------------------------------------------------------

    def _stage(self, held: str | None) -> str | None:
        """Add the steps up to the next item; returns it, or None where there is no further stage.

        :param held: the item the last stage gave, for the next lock; None at the start
        """
        left = self.length - len(self.steps)
        if held is not None and not self.spare_locks:
            return None
        ways = [name for name, room in self.containers.items() if name not in self.locks and self._near(room, left)]
        if self.door is not None and DOOR not in self.locks and self._near(self._side(), left):
            ways += [DOOR, DOOR]
        if held is None:
            ways.append("")
        if not ways or not self.spare_objects:
            return None
        way = self.random.choice(ways)
        if way == DOOR:
            return self._through_the_door(held)
        if not way:
            return self._take_in_the_open([room for room in self.rooms if self._near(room, left)])
        self._walk(self.containers[way])
        self._unlock(way, held)
        return self._take(self._item(), way)

    def _through_the_door(self, held: str | None) -> str | None:
        beyond = [room for room in self.rooms if room not in self.open_to]
        self._walk(self._side())
        self._unlock(DOOR, held)
        self.open_to = set(self.rooms)
        shut = [name for name, room in self.containers.items() if room in beyond]
        if shut and self.random.random() < 0.5:
            name = self.random.choice(shut)
            self._walk(self.containers[name])
            self._unlock(name, None)
            return self._take(self._item(), name)
        return self._take_in_the_open(beyond)

    def _take_in_the_open(self, rooms: list[str]) -> str | None:
        if not rooms:
            return None
        room = self.random.choice(rooms)
        tops = [name for name, home in self.supporters.items() if home == room]
        self._walk(room)
        return self._take(self._item(), self.random.choice([room, *tops]))

    def _item(self) -> str:
        self.spare_objects -= 1
        return f"item {len(self.places)}"  # named once it is clear what it is for

    def _take(self, item: str, place: str) -> str:
        self.places[item] = place
        self.steps.append(Step("take", item))
        return item

    def _unlock(self, name: str, item: str | None) -> None:
        """Open a container or the door, with the item as its key where there is one."""
        self.locks[name] = SHUT
        if item is not None:
            self.locks[name] = self.spare_locks.pop()
            key = key_of(self.locks[name])
            self._rename(item, key)
            self.steps.append(Step("unlock", name, key))
        self.steps.append(Step("open", name))

    def _finished(self, held: str) -> bool:
        """Put the item down where that takes exactly the steps that are left."""
        left = self.length - len(self.steps)
        fitting = [name for name, room in self.supporters.items() if self._distance(room) == left - 1]
        if not fitting or self.random.random() >= FINISH_SHARE:
            return False
        name = self.random.choice(fitting)
        self._walk(self.supporters[name])
        self.steps.append(Step("put", held, name))
        return True

    def _needed(self) -> bool:
        """Whether the last step needs all before it: a walk does only where nothing was to be done but walk, or
        where it leads on from the door."""
        quest = self.steps[: self.length]
        if quest[-1].verb != "go":
            return True
        deeds = [step for step in quest if step.verb != "go"]
        return not deeds or deeds[-1] == Step("open", DOOR)

    # --- the rest -----------------------------------------------------------------------------------------

    def _distract(self) -> None:
        """Name what is left unnamed and add the objects, containers and locks that play no part."""
        for item in [name for name in self.places if name.startswith("item ")]:
            self._rename(item, self.nouns.pop())
        if DOOR not in self.locks:
            self.door = None
        idle = [name for name in self.containers if name not in self.locks]
        names = self.nouns[: self.spare_objects] + [key_of(lock) for lock in self.spare_locks]
        for name in self.random.sample(names, self.spare_objects):
            self.places[name] = self.random.choice([*self.rooms, *self.supporters, *idle])
        for name in idle:
            full = name in self.places.values()
            self.locks[name] = SHUT if full and self.random.random() < 0.5 else OPEN

    def _furniture(self, names: tuple[str, ...], share: float) -> dict[str, str]:
        """At most one piece a room, as many as there are names, at least one."""
        rooms = [room for room in self.rooms if self.random.random() < share] or [self.random.choice(self.rooms)]
        self.random.shuffle(rooms)
        return dict(zip(self.random.sample(names, len(names)), rooms, strict=False))

    def _place_door(self) -> None:
        room = self.random.choice([room for room in self.rooms if room != self.start])
        before = ([self.start] + [name for _, name in _way(self.exits, self.start, room)])[-2]
        self.door = (before, room)
        self.open_to = {
            name for name in self.rooms if room not in [step for _, step in _way(self.exits, self.start, name)]
        }

    def _side(self) -> str:
        assert self.door is not None
        return self.door[0]

    def _near(self, room: str, left: int) -> bool:
        """Whether a room can be reached with a step to spare."""
        return room in self.open_to and self._distance(room) < left

    def _distance(self, room: str) -> int:
        return len(_way(self.exits, self.at, room))

    def _walk(self, room: str) -> None:
        self.steps += [Step("go", direction, name) for direction, name in _way(self.exits, self.at, room)]
        self.at = room

    def _rename(self, item: str, name: str) -> None:
        self.places[name] = self.places.pop(item)
        self.steps = [
            Step(step.verb, name, step.other) if step.thing == item and step.verb != "go" else step
            for step in self.steps
        ]


def _map(random: Random, names: list[str]) -> dict[str, dict[str, str]]:
    """Rooms on a grid, each but the first joined to one that was there before: a tree."""
    cells = {(0, 0): names[0]}
    exits: dict[str, dict[str, str]] = {names[0]: {}}
    opposite = {"north": "south", "south": "north", "east": "west", "west": "east"}
    while len(cells) < len(names):
        (x, y), (direction, (dx, dy)) = random.choice(list(cells.items()))[0], random.choice(list(DIRECTIONS.items()))
        cell = (x + dx, y + dy)
        if cell not in cells:
            name = names[len(cells)]
            exits[cells[x, y]][direction] = name
            exits[name] = {opposite[direction]: cells[x, y]}
            cells[cell] = name
    return {room: {d: ways[d] for d in DIRECTIONS if d in ways} for room, ways in exits.items()}


def _way(exits: dict[str, dict[str, str]], start: str, end: str) -> list[tuple[str, str]]:
    """Directions and rooms from one room to another in a tree."""
    came: dict[str, tuple[str, str] | None] = {start: None}
    queue = deque([start])
    while end not in came:
        room = queue.popleft()
        for direction, name in exits[room].items():
            if name not in came:
                came[name] = (direction, room)
                queue.append(name)
    way = []
    while (back := came[end]) is not None:
        way.append((back[0], end))
        end = back[1]
    return way[::-1]
