"""The contract of each role, one file a role, as checks a plugin's author runs on a component."""

from orchestrator.testing.checks.component import check_component

__all__ = ["check_component"]
