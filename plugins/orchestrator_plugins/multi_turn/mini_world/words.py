"""Every word of the mini world, each worth a token of its own (``policy.model.words``)."""

from __future__ import annotations

DIRECTIONS = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
ROOMS = (
    "attic",
    "bathroom",
    "bedroom",
    "cellar",
    "garage",
    "garden",
    "hall",
    "kitchen",
    "library",
    "pantry",
    "porch",
    "study",
)
CONTAINERS = ("box", "chest", "crate", "cupboard", "drawer", "fridge", "safe", "trunk")
SUPPORTERS = ("bench", "counter", "desk", "rack", "shelf", "sofa", "stool", "table")
OBJECTS = (
    "apple",
    "ball",
    "book",
    "bread",
    "brush",
    "coin",
    "cup",
    "flute",
    "hat",
    "knife",
    "lamp",
    "map",
    "ring",
    "rope",
    "spoon",
    "vase",
)
METALS = ("brass", "gold", "iron", "silver")
DOOR = "door"

VERBS = ("go", "open", "unlock", "take", "put")
PREPOSITIONS = ("on", "in", "with")

OPEN, SHUT = "open", "shut"
OK, CANNOT, UNKNOWN = "ok", "cannot", "unknown"
GOAL, NOW, SEE, TO, HAVE = "goal", "now", "see", "to", "have"

KEYS = tuple(f"{metal}-key" for metal in METALS)
LOCKS = tuple(f"{metal}-lock" for metal in METALS)

WORDS = (
    *VERBS,
    *PREPOSITIONS,
    *DIRECTIONS,
    *ROOMS,
    *CONTAINERS,
    *SUPPORTERS,
    *OBJECTS,
    *KEYS,
    *LOCKS,
    DOOR,
    SHUT,
    OK,
    CANNOT,
    UNKNOWN,
    GOAL,
    NOW,
    SEE,
    TO,
    HAVE,
)
"""The closed vocabulary: all an observation says and all a command may."""


def key_of(lock: str) -> str:
    """The key that fits a lock: ``iron-lock`` takes the ``iron-key``."""
    return f"{lock.removesuffix('-lock')}-key"
