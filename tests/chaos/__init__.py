"""Faults at random over small sweeps of every kind; see ``__main__``."""
