"""Causal language models as policies: any transformers model, or a tiny one built on the spot."""

from collections.abc import Sequence

from orchestrator.api import Component, Problem, Speaks, hookimpl

from .config import CausalLMConfig, plan_problems


@hookimpl
def provide_policies() -> list[Component]:
    """Offer the policy ``causal_lm``."""
    return [Component(name="causal_lm", config=CausalLMConfig, build=".policy:CausalLMPolicy", speaks=Speaks.MESSAGES)]


@hookimpl
def check_plan(plan) -> Sequence[Problem]:
    """Report model folders that do not exist, and optional packages that are not installed."""
    return plan_problems(plan)
