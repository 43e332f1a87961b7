"""For the test suites of plugins: scripted policies, tiny worlds, made-up batches, plans and trials, and the contract checks.

A plugin's whole contract test is::

    from orchestrator.testing import check_component, load_only
    import my_plugin

    def test_contract():
        registry = load_only(my_plugin)
        check_component(registry.describe("objective", "mine"), {"clip": 0.2})
"""

from orchestrator.testing.batches import Outputs, make_batch, make_outputs, objective_gradients, pad_batch
from orchestrator.testing.checks import check_component
from orchestrator.testing.loading import load_only
from orchestrator.testing.plans import make_plan, make_settings, make_study, make_trial
from orchestrator.testing.scripted import ScriptedChoices, ScriptedPolicy
from orchestrator.testing.worlds import CorridorEnvironment, EchoEnvironment

__all__ = [
    "CorridorEnvironment",
    "EchoEnvironment",
    "Outputs",
    "ScriptedChoices",
    "ScriptedPolicy",
    "check_component",
    "load_only",
    "make_batch",
    "make_outputs",
    "make_plan",
    "make_settings",
    "make_study",
    "make_trial",
    "objective_gradients",
    "pad_batch",
]
