"""The mini world: rooms, locks, keys and a chain of sub-goals, told in fewer than 120 words."""
