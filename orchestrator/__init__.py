"""Reinforcement-learning experiments: train every method alike, then say which is better.

Plugin authors import from :mod:`orchestrator.api`; their test suites also from :mod:`orchestrator.testing`.
"""

__version__ = "0.1.0"
