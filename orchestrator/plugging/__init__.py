"""Finds plugins, refuses those that would fail later, and builds their components."""
