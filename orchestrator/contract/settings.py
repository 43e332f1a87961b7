"""What an experiment file may say: every key with its type, default and meaning."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.contract.batch import Reduction
from orchestrator.contract.sections import ComponentSpec, RewardSpec, Section
from orchestrator.contract.seeds import ListedOrLookedAt, SeedsUntil


class Schedule(Section):
    """How long to train and how a step is cut up."""

    steps: int = Field(100, ge=0, description="steps: sample, score, update")
    tasks_per_step: int = Field(32, ge=1, description="tasks drawn for each step")
    epochs: int = Field(1, ge=1, description="passes over the rollouts of a step")
    minibatches: int = Field(1, ge=1, description="optimiser steps per epoch")
    steps_per_round: int = Field(1, ge=1, description="steps between refreshes of the behaviour policy")
    refresh_reference: Literal["never", "round"] = Field(
        "never", description="when the reference becomes the trained policy"
    )
    refresh_optimizer: Literal["never", "round"] = Field(
        "never", description="when the optimiser forgets its moments: round makes each round a training of its own"
    )


Momentum = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Section):
    """The optimiser and its learning rate."""

    use: Literal["adamw", "rmsprop", "sgd"] = Field("adamw", description="algorithm")
    lr: float = Field(1e-4, gt=0, description="peak learning rate")
    warmup: int = Field(0, ge=0, description="optimiser steps of linear warm-up")
    decay: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="after the warm-up, over the rest of the schedule's steps"
    )
    betas: tuple[Momentum, Momentum] = Field((0.9, 0.999), description="AdamW's moment decay rates")
    eps: float = Field(1e-8, gt=0, description="added to AdamW's and RMSProp's denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float | None = Field(1.0, gt=0, description="gradient norm is clipped to this; null: not at all")
    critic_lr: float | None = Field(None, gt=0, description="learning rate of parameters under `critic`; null: lr")


class Correction(Section):
    """How the gap between what acts and what is trained is corrected, by importance weights of the policy's loss."""

    kind: Literal["none", "truncated", "masked"] = Field(
        "none",
        description="what the ratio of the trainer's probability to the recorded one does: nothing; weigh, at most by the "
        "cap; weigh, and leave out what lies beyond the bounds",
    )
    level: Literal["token", "sequence"] = Field(
        "token", description="whose ratio: each token's, or the product over a row's tokens for all of them"
    )
    cap: float = Field(2.0, ge=1, description="largest ratio; TIS and MIS: C, 2 in their papers' runs; IcePop: beta, 5")
    floor: float = Field(0.0, ge=0, le=1, description="smallest ratio, of masked alone; 0: none; IcePop: alpha, 0.5")

    @model_validator(mode="after")
    def _has_effect(self) -> Correction:
        given = sorted(self.model_fields_set - {"kind"})
        if given and "kind" not in self.model_fields_set:
            raise ValueError(
                f"{', '.join(given)} without a kind corrects nothing; give kind: truncated or kind: masked"
            )
        if self.kind == "truncated" and self.floor > 0:
            raise ValueError(f"floor {self.floor} belongs to kind: masked; truncated has a cap alone")
        return self


class Update(Section):
    """How the rollouts of a step become gradients."""

    reduction: Reduction | None = Field(None, description="overrides the reduction of per-token policy losses")
    micro_batch_rows: int | None = Field(None, ge=1, description="most rows in one forward and backward pass")
    micro_batch_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] | None = Field(
        "auto",
        description="most padded tokens in one pass; auto: what fits in memory, from 256 to 16384, picked once a trial; null: no limit",
    )
    drop_constant_groups: bool = Field(False, description="leave out groups whose scores are all equal")
    correction: Correction = Field(Correction(), description="of the gap between acting and training")
    non_finite_limit: int = Field(3, ge=1, description="skipped updates in a row that fail the trial")


class SamplingSpec(Section):
    """How training rollouts are drawn."""

    temperature: float = Field(1.0, ge=0, description="logits are divided by it; 0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="smallest nucleus of this mass")
    top_k: int = Field(0, ge=0, description="most likely tokens kept; 0: all")
    max_tokens: int = Field(64, ge=1, description="tokens per action")
    max_turns: int = Field(32, ge=1, description="actions per episode")
    concurrent: int = Field(1024, ge=1, description="episodes played side by side")


class Evaluation(Section):
    """Held-out measurement, its cost counted apart from training's."""

    every: int = Field(10, ge=0, description="steps between evaluations; 0: only before and after training")
    tasks: int = Field(64, ge=1, description="tasks from the front of the EVAL split")
    samples: int = Field(4, ge=1, description="rollouts per task")
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), description="pass@k for these k, each at most `samples`")
    temperature: float = Field(1.0, ge=0, description="sampling temperature")
    top_p: float = Field(1.0, gt=0, le=1, description="smallest nucleus of this mass")
    success_at: float | None = Field(
        None, description="score from which a rollout is right; null: the episode's `correct` metric"
    )
    first: bool = Field(True, description="evaluate before the first step")


class Budget(Section):
    """What an arm may spend; whatever is reached first ends the trial."""

    generated_tokens: int | None = Field(None, ge=1, description="tokens (actions) generated for training")
    seconds: float | None = Field(None, gt=0, description="wall-clock seconds of the trial")


class Checkpoints(Section):
    """When to save, and how many to keep."""

    every: int = Field(10, ge=0, description="steps between checkpoints; 0: only at the end")
    keep: int = Field(2, ge=1, description="newest checkpoints kept")


class Failures(Section):
    """What a trial survives."""

    rollout_share: float = Field(
        0.2, ge=0, le=1, description="share of failed rollouts in a step above which the trial fails"
    )
    restarts: int = Field(
        2,
        ge=0,
        description="restarts of a trial whose worker died; and of a local Ray that was lost, in a row without the "
        "end of a trial",
    )
    step_seconds: float | None = Field(
        None,
        ge=0,
        description="seconds a call of the environment may take before its process is ended, and the trial goes on from "
        "its checkpoint with that rollout failed; 0: no limit; null: none for components of this distribution, 600 for "
        "others",
    )
    reward_seconds: float | None = Field(
        None, ge=0, description="the same for a reward's scoring of one group, whose rollouts are failed"
    )
    method_seconds: float | None = Field(
        None,
        ge=0,
        description="the same for the sampler's own time in a step (without the episodes it asks for), for a call of the "
        "advantage estimator and one of the objective; called again it fails the trial. Policies have no limit but the "
        "budget's",
    )


def _named(value: Any) -> Any:
    """A bare name stands for a component without options."""
    return {"use": value} if isinstance(value, str) and value != "none" else value


Mode = Literal["max", "min"]


class Tune(Section):
    """How the search space is explored, each arm with the same budget."""

    samples: int = Field(8, ge=1, description="configurations tried per arm; ignored by grid search")
    searcher: Annotated[ComponentSpec, BeforeValidator(_named)] = Field(
        ComponentSpec(use="random"), description="who proposes configurations: a name, or {use: NAME, ...}"
    )
    scheduler: Annotated[Literal["none"] | ComponentSpec, BeforeValidator(_named)] = Field(
        "none", description="who stops trials early: none, a name, or {use: NAME, ...}"
    )
    metric: str | Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None, description="what is compared; a list: a Pareto front is sought; null: the report's metric"
    )
    mode: Mode | tuple[Mode, ...] = Field("max", description="whether more is better; a list: of each metric")
    seeds: int = Field(1, ge=1, description="tuning seeds per configuration, disjoint from `seeds`")
    seed: int = Field(0, ge=0, description="of the searcher")

    @model_validator(mode="after")
    def _one_mode_each(self) -> Tune:
        metrics, modes = self.metrics, self.mode
        if isinstance(modes, tuple) and len(modes) != len(metrics):
            raise ValueError(f"tune.mode lists {len(modes)} directions for {len(metrics)} metrics; give one for each")
        twice = sorted({metric for metric in metrics if metrics.count(metric) > 1})
        if twice:
            raise ValueError(f"tune.metric lists {', '.join(twice)} twice")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics named, however many."""
        return (self.metric,) if isinstance(self.metric, str) else self.metric or ()


class Resources(Section):
    """What one trial may use."""

    cpus: float = Field(1, gt=0, description="CPU cores per worker, torch threads included")
    gpus: float = Field(0, ge=0, description="GPUs per worker")
    workers: int = Field(1, ge=1, description="processes per trial; only 1 is run so far")
    concurrent: int | None = Field(None, ge=1, description="trials at once; null: as many as fit")
    address: str | None = Field(None, description="a running Ray cluster, or `auto`; null: a local one")


class Tracking(Section):
    """Where metrics go besides the run's own files."""

    uri: str | None = Field(None, description="MLflow store or server; null: sqlite under the runs folder")
    experiment: str | None = Field(None, description="MLflow experiment; null: the file's name")
    enabled: bool = Field(True, description="false: no MLflow")
    transcripts: int = Field(4, ge=0, description="rollout groups written per step")


class ReportSettings(Section):
    """What the verdict compares."""

    metric: str | None = Field(None, description="null: eval/pass_at_1 where measured, else eval/reward/mean")
    mode: Literal["max", "min"] = Field("max", description="whether more is better")
    confidence: float = Field(0.95, gt=0, lt=1, description="of intervals and of the verdict")
    baseline: str | None = Field(None, description="arm the others are compared with; null: the first")
    compare: Literal["baseline", "best"] = Field(
        "baseline", description="baseline: every arm with the baseline; best: which arm is the best of all"
    )
    margin: float | None = Field(
        None,
        gt=0,
        description="differences smaller than this do not matter, in points of the metric (0.05: five points of "
        "pass@1); null: no arm is called equivalent",
    )


MODEL_FILE = "model.safetensors"  # the weights in a checkpoint's folder, as transformers names them


class Start(Section):
    """A phase run once and shared by all arms and seeds that agree on it: a warm-up, or a checkpoint."""

    recipe: str | None = Field(None, description="recipe of the phase, such as sft")
    checkpoint: str | None = Field(None, description=f"directory with {MODEL_FILE} to start from instead")
    seed: int = Field(0, ge=0, description="of the phase")
    environment: dict[str, Any] | None = Field(
        None, description="overlay over the trial's environment, as in {train_on: demonstrations}"
    )
    start: Start | None = Field(None, description="a phase that this phase begins with")
    sampler: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    advantage: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    objective: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    rewards: list[dict[str, Any]] | None = Field(None, description="overlay, as in an arm")
    schedule: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    optimizer: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    update: dict[str, Any] | None = Field(None, description="overlay, as in an arm")
    sampling: dict[str, Any] | None = Field(None, description="overlay, as in an arm")


class Settings(Section):
    """One trial, resolved: what a worker gets, beside its seed."""

    name: str = Field(
        min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", description="names the run's directory"
    )
    recipe: str | None = Field(None, description="a method with its paper's defaults")
    procedure: str = Field("train", description="what runs a trial; plugins may offer others than `train`")
    environment: ComponentSpec
    policy: ComponentSpec | None = None
    sampler: ComponentSpec | None = None
    rewards: tuple[RewardSpec, ...] = Field((), description="summed by weight; none: the episode's own rewards")
    advantage: ComponentSpec | None = Field(None, description="null: the score itself, on every token")
    objective: ComponentSpec | None = None
    start: Start | None = None
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    update: Update = Update()
    sampling: SamplingSpec = SamplingSpec()
    evaluation: Evaluation = Evaluation()
    budget: Budget = Budget()
    checkpoints: Checkpoints = Checkpoints()
    failures: Failures = Failures()
    resources: Resources = Resources()
    tracking: Tracking = Tracking()
    report: ReportSettings = ReportSettings()


class Variation(Section):
    """What an experiment varies: methods, seeds, options."""

    arms: dict[str, dict[str, Any]] = Field(default_factory=dict, description="overlays by name; none: one arm")
    seeds: ListedOrLookedAt = Field(
        (0,),
        description="one trial per arm and seed; arms.NAME.seeds: an arm's own; {first, at_most}: until arms are decided",
    )
    search: dict[str, dict[str, Any]] = Field(default_factory=dict, description="dotted path to {kind: arguments}")
    most_trials: int = Field(10_000, ge=1, description="a plan with more trials is refused")
    tune: Tune = Tune()

    @property
    def sequential(self) -> SeedsUntil | None:
        """How seeds are added look by look; None where they are listed."""
        return self.seeds if isinstance(self.seeds, SeedsUntil) else None

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Seeds an arm enters the verdict with, at most: its own where it has some, else those of all."""
        own = self.arms.get(arm, {}).get("seeds")
        if isinstance(self.seeds, SeedsUntil):
            return tuple(range(self.seeds.at_most))
        return self.seeds if own is None else tuple(own)

    def first_seeds_of(self, arm: str) -> tuple[int, ...]:
        """Seeds an arm begins with: all of them where they are listed, else those of the first look."""
        seeds = self.seeds_of(arm)
        return seeds if self.sequential is None else seeds[: self.sequential.first]

    def all_seeds(self) -> tuple[int, ...]:
        """Every seed that any arm may get, those of all arms first."""
        shared = self.seeds_of("") if isinstance(self.seeds, SeedsUntil) else self.seeds
        own = (seed for arm in self.arms for seed in self.seeds_of(arm))
        return tuple(dict.fromkeys((*shared, *own)))


class Experiment(Variation, Settings):
    """A whole experiment file: the settings all arms share, and what is varied."""
