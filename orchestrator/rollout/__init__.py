"""Plays episodes with a policy, and lays what was played out as a batch."""
