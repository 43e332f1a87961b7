"""The public surface: everything a plugin may use. What is not here is private, whatever its name.

Names that need torch, or much else, are imported on first use, so that listing plugins stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from orchestrator.contract.batch import (
    Batch,
    Column,
    Credit,
    LossTerm,
    Mean,
    Need,
    Packed,
    Reduction,
    Terms,
    Weights,
    advantages_of,
)
from orchestrator.contract.component import (
    Command,
    Component,
    NoOptions,
    PluginConfig,
    Recipe,
    ReportSection,
    Role,
    Use,
    UseAdvantage,
    UseEnvironment,
    UseObjective,
    UseReward,
    UseSampler,
)
from orchestrator.contract.markers import hookimpl
from orchestrator.contract.parts import Facts, Part, facts_of
from orchestrator.contract.roles import (
    AdvantageEstimator,
    BetweenRounds,
    Bounded,
    Collect,
    Environment,
    Episode,
    Evaluates,
    MultiAgentEpisode,
    Objective,
    Policy,
    Prepares,
    Reports,
    Reward,
    Sampler,
    ScalesGradient,
    Stateful,
    StepsTogether,
)
from orchestrator.contract.secrets import reveal
from orchestrator.contract.strict import NamesCode, PathOrName
from orchestrator.contract.types import (
    Action,
    Context,
    Couples,
    Features,
    Feedback,
    Finish,
    Message,
    Messages,
    Observation,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    Sampling,
    Score,
    Speaks,
    Split,
    Stop,
    Task,
    TrialResult,
    Turn,
)
from orchestrator.errors import (
    ConfigError,
    ContextError,
    Failure,
    OrchestratorError,
    Problem,
    TrialError,
    TrialInterrupted,
)
from orchestrator.plugging.registry import Registry, load_registry

if TYPE_CHECKING:
    from orchestrator.contract.plan import Components, ComponentSource, Phase, Plan, Trial, TrialSpec
    from orchestrator.contract.settings import Experiment, Settings
    from orchestrator.experiment.overlay import flatten
    from orchestrator.maths.advantages import (
        discounted_returns,
        generalised_advantages,
        group_centered,
        leave_one_out,
        whiten,
    )
    from orchestrator.maths.losses import (
        clipped_surrogate,
        clipped_value_loss,
        cross_entropy,
        is_clipped,
        kl_estimate,
    )
    from orchestrator.maths.masked import masked_mean, masked_std, masked_sum, sequence_sum
    from orchestrator.maths.ratios import importance_ratio, log_ratio
    from orchestrator.maths.shapes import expect_shape, group_index
    from orchestrator.maths.streams import splitmix64, unit_interval
    from orchestrator.runs.atomic import write_json, written_aside
    from orchestrator.runs.curves import Curve
    from orchestrator.runs.layout import RunFolder, TrialFolder
    from orchestrator.runs.ledger import Ledger, read_rows
    from orchestrator.runs.read import TrialData
    from orchestrator.runs.study import Study
    from orchestrator.training.reduction import reduce_terms
    from orchestrator.training.regulariser import Regulariser

_LAZY = {
    "ComponentSource": "orchestrator.contract.plan",
    "Components": "orchestrator.contract.plan",
    "Curve": "orchestrator.runs.curves",
    "Experiment": "orchestrator.contract.settings",
    "Ledger": "orchestrator.runs.ledger",
    "Phase": "orchestrator.contract.plan",
    "Plan": "orchestrator.contract.plan",
    "Regulariser": "orchestrator.training.regulariser",
    "RunFolder": "orchestrator.runs.layout",
    "Settings": "orchestrator.contract.settings",
    "Study": "orchestrator.runs.study",
    "Trial": "orchestrator.contract.plan",
    "TrialData": "orchestrator.runs.read",
    "TrialFolder": "orchestrator.runs.layout",
    "TrialSpec": "orchestrator.contract.plan",
    "clipped_surrogate": "orchestrator.maths.losses",
    "clipped_value_loss": "orchestrator.maths.losses",
    "cross_entropy": "orchestrator.maths.losses",
    "discounted_returns": "orchestrator.maths.advantages",
    "expect_shape": "orchestrator.maths.shapes",
    "flatten": "orchestrator.experiment.overlay",
    "generalised_advantages": "orchestrator.maths.advantages",
    "group_centered": "orchestrator.maths.advantages",
    "group_index": "orchestrator.maths.shapes",
    "importance_ratio": "orchestrator.maths.ratios",
    "is_clipped": "orchestrator.maths.losses",
    "kl_estimate": "orchestrator.maths.losses",
    "leave_one_out": "orchestrator.maths.advantages",
    "log_ratio": "orchestrator.maths.ratios",
    "masked_mean": "orchestrator.maths.masked",
    "masked_std": "orchestrator.maths.masked",
    "masked_sum": "orchestrator.maths.masked",
    "read_rows": "orchestrator.runs.ledger",
    "reduce_terms": "orchestrator.training.reduction",
    "sequence_sum": "orchestrator.maths.masked",
    "splitmix64": "orchestrator.maths.streams",
    "unit_interval": "orchestrator.maths.streams",
    "whiten": "orchestrator.maths.advantages",
    "write_json": "orchestrator.runs.atomic",
    "written_aside": "orchestrator.runs.atomic",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Action",
    "AdvantageEstimator",
    "Batch",
    "BetweenRounds",
    "Bounded",
    "Collect",
    "Column",
    "Command",
    "Component",
    "ComponentSource",
    "Components",
    "ConfigError",
    "Context",
    "ContextError",
    "Couples",
    "Credit",
    "Curve",
    "Environment",
    "Episode",
    "Evaluates",
    "Experiment",
    "Facts",
    "Failure",
    "Features",
    "Feedback",
    "Finish",
    "Ledger",
    "LossTerm",
    "Mean",
    "Message",
    "Messages",
    "MultiAgentEpisode",
    "NamesCode",
    "Need",
    "NoOptions",
    "Objective",
    "Observation",
    "OrchestratorError",
    "Packed",
    "Part",
    "PathOrName",
    "Phase",
    "Plan",
    "PluginConfig",
    "Policy",
    "Prepares",
    "Problem",
    "Recipe",
    "Reduction",
    "Registry",
    "Regulariser",
    "ReportSection",
    "Reports",
    "Reward",
    "Role",
    "Rollout",
    "RolloutGroup",
    "RolloutRequest",
    "RunFolder",
    "Sampler",
    "Sampling",
    "ScalesGradient",
    "Score",
    "Settings",
    "Speaks",
    "Split",
    "Stateful",
    "StepsTogether",
    "Stop",
    "Study",
    "Task",
    "Terms",
    "Trial",
    "TrialData",
    "TrialError",
    "TrialFolder",
    "TrialInterrupted",
    "TrialResult",
    "TrialSpec",
    "Turn",
    "Use",
    "UseAdvantage",
    "UseEnvironment",
    "UseObjective",
    "UseReward",
    "UseSampler",
    "Weights",
    "advantages_of",
    "clipped_surrogate",
    "clipped_value_loss",
    "cross_entropy",
    "discounted_returns",
    "expect_shape",
    "facts_of",
    "flatten",
    "generalised_advantages",
    "group_centered",
    "group_index",
    "hookimpl",
    "importance_ratio",
    "is_clipped",
    "kl_estimate",
    "leave_one_out",
    "load_registry",
    "log_ratio",
    "masked_mean",
    "masked_std",
    "masked_sum",
    "read_rows",
    "reduce_terms",
    "reveal",
    "sequence_sum",
    "splitmix64",
    "unit_interval",
    "whiten",
    "write_json",
    "written_aside",
]
