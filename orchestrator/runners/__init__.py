"""Runs the trials of a plan: one, all in this process, or many at once on Ray Tune."""
