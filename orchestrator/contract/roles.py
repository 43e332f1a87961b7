"""The roles a plugin may fill, six of a trial and two of a search, and the optional capabilities found by ``isinstance``.

No role is ``async``: calls take batches, and the core overlaps what it can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from orchestrator.contract.batch import Batch, Column, Credit, Need, Packed, Terms
    from orchestrator.contract.search import Decision, Judged, Known, Search, TrialEnd, TrialReport
    from orchestrator.contract.types import (
        Action,
        Context,
        Couples,
        Feedback,
        Observation,
        Rollout,
        RolloutGroup,
        RolloutRequest,
        Sampling,
        Score,
        Speaks,
        Split,
        Task,
    )
    from orchestrator.errors import Problem


@runtime_checkable
class Episode(Protocol):
    """One play of one task; single use, there is no reset."""

    def open(self) -> Observation:
        """Begin; returns what the policy sees first."""

    def step(self, action: Action) -> Feedback:
        """Apply one action. Never called again after ``done``."""

    def close(self) -> None:
        """Free what the play holds; called once, also after an error."""


@runtime_checkable
class MultiAgentEpisode(Protocol):
    """Several agents share one world; each agent's play is one rollout of the group."""

    def open(self) -> Mapping[str, Observation]:
        """Begin; returns the agents that must act now."""

    def step(self, actions: Mapping[str, Action]) -> Mapping[str, Feedback]:
        """Apply the actions of all agents that were to act.

        The answer pays those agents and names who acts next: every agent with ``done=False`` and an observation.
        An agent may first appear here (with reward 0), and one that acted may be answered with ``observation=None``:
        it waits. The episode ends when nobody is to act.
        """

    def close(self) -> None:
        """Free what the play holds; called once, also after an error."""


@runtime_checkable
class Environment(Protocol):
    """What is there to do, and what happens when I act?

    :ivar speaks: what its observations are made of; over ``FEATURES`` it also has the numbers ``features`` and
        ``actions``
    """

    speaks: Speaks

    def tasks(self, split: Split) -> Iterable[Task]:
        """Tasks in a fixed order, deterministic in the seed of the environment's options; may be endless.

        Called again it starts over. The core reads evaluation tasks from the front, and resumes training tasks
        by skipping those already seen. An exhausted TRAIN split starts over.
        """

    def start(self, task: Task, seed: int) -> Episode | MultiAgentEpisode:
        """Make one play of the task, reproducible in ``seed``."""


@runtime_checkable
class Policy(Protocol):
    """What do I do, and how likely was it? A model that acts and is trained.

    :ivar speaks: which observations it understands
    :ivar module: what is optimised, sharded, checkpointed
    """

    speaks: Speaks
    module: torch.nn.Module

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> Sequence[Action]:
        """Choose one action for each context, in one batch, without gradient."""

    def encode(self, texts: Sequence[str]) -> Sequence[tuple[int, ...]]:
        """Turn actions given as text into tokens, terminator included."""

    def pack(self, rollouts: Sequence[Rollout]) -> Packed:
        """Lay rollouts out as padded tensors, one row each, in order; the temperature travels in ``inputs``."""

    def columns(self, inputs: Mapping[str, Tensor], wanted: frozenset[Column]) -> Mapping[Column, Tensor]:
        """Compute statistics, differentiable, with the module's present weights; only what is wanted."""

    def refresh(self) -> None:
        """Carry the module's weights to whatever ``act`` runs on."""


@runtime_checkable
class Collect(Protocol):
    """Given by the core to samplers: plays and scores the requests in one batch, one group per request."""

    def __call__(self, requests: Sequence[RolloutRequest]) -> Sequence[RolloutGroup]:
        """Play and score."""


@runtime_checkable
class Sampler(Protocol):
    """Which task gets how many rollouts, in how many stages?

    Two optional attributes let a plan be refused that could not train: ``demonstrates = True`` (every task must have a
    demonstration) and ``most_siblings`` (rollouts of one agent that a group can hold; None: no saying beforehand).
    """

    def sample(self, tasks: Sequence[Task], collect: Collect) -> Sequence[RolloutGroup]:
        """Return the groups to train on. What was collected but is not returned still counts as cost."""


@runtime_checkable
class Reward(Protocol):
    """How good was it? Sees all siblings, since preferences compare them."""

    def score(self, group: RolloutGroup) -> Sequence[Score]:
        """One score per rollout, in order. Failed rollouts are not among them."""


@runtime_checkable
class AdvantageEstimator(Protocol):
    """Which token deserves the credit? Always sees whole groups, never a model.

    One that learns from smaller groups nothing says how many siblings it takes with ``least_siblings``.

    :ivar needs: statistics it reads from ``Batch.columns``, never of ``CURRENT`` weights
    """

    needs: frozenset[Need]

    def estimate(self, batch: Batch) -> Credit:
        """Advantages for every token of the batch."""


@runtime_checkable
class Objective(Protocol):
    """What is minimised? Never sees a model, never divides by a batch size.

    Terms with masks of their own are counted over all micro-batches before any is weighed, which takes a forward pass.
    An objective whose masks follow from the batch alone says so with ``counts_ahead = True``: then ``terms`` is called
    on [B, T] numbers of no meaning to count them, and no pass is needed. One that learns from smaller groups nothing
    says how many siblings it takes with ``least_siblings``.

    :ivar needs: statistics it reads: those of ``CURRENT`` weights from ``current``, others from ``Batch.columns``
    :ivar couples: what a micro-batch must keep together
    """

    needs: frozenset[Need]
    couples: Couples

    def terms(self, batch: Batch, current: Mapping[Column, Tensor]) -> Terms:
        """Unreduced loss terms of one micro-batch; gradient flows through ``current`` only."""


@runtime_checkable
class Searcher(Protocol):
    """Which configuration is tried next? Proposes values given what is known; lives in the driver, one for each arm.

    A searcher keeps nothing that a killed driver would lose: the same search and the same ``known`` give the same
    proposal, in a new object and in one that was asked before. One with a model of its own rebuilds it from
    ``known.events``; it may keep it for the next call, as long as what it kept begins with the same events. All
    randomness comes from ``search.seed``, ``search.arm`` and the number of the proposal, ``len(known.tried)``. Where the
    journal holds other proposals than it would make today (an earlier version made them), those of the journal stand.

    :ivar adaptive: whether proposals depend on results. Where they do not, the plan lists them all before anything runs,
        the same for every arm, and ``known`` holds proposals without results
    """

    adaptive: bool

    def propose(self, search: Search, known: Known) -> Mapping[str, Any] | None:
        """Propose the next configuration, a value of its type and within its bounds for each path of the space.

        :returns: dotted path to value, as JSON has them; None: nothing now. It is asked again when more is known; when
            nothing is being played, the arm's search is over. It is never asked for more than ``search.samples``, unless
            it is not adaptive
        """


@runtime_checkable
class Scheduler(Protocol):
    """Which trial of a search is stopped early? Judges one report given all; lives in the driver, one for each arm.

    A scheduler keeps nothing that a killed driver would lose: the same report after the same reports, decisions and ends
    is judged alike, by a new object and by one that judged before. What was decided stands: read it from ``before``
    rather than deciding it again.
    """

    def judge(self, report: TrialReport, before: Sequence[Judged | TrialEnd]) -> Decision:
        """Judge one evaluation of a trial.

        :param before: everything that happened among the arm's tuning trials so far, in order; never change it
        """


@runtime_checkable
class ChecksSearch(Protocol):
    """A searcher or scheduler that cannot do with every search; asked while planning, once for each experiment."""

    def check_search(self, search: Search) -> Sequence[Problem]:
        """What is wrong with the search, and the next step, each at the path the user typed (``search.optimizer.lr``)."""


@runtime_checkable
class ChecksTasks(Protocol):
    """A reward that cannot do with every task; asked before anything runs, with the first task of each split.

    One that imports code which the experiment names is built, and asked, by ``run`` and not by ``plan``.
    """

    def check_task(self, task: Task) -> Sequence[str]:
        """What of the task is not as the reward needs it, and the next step; nothing where it can be scored."""


@runtime_checkable
class Stateful(Protocol):
    """A component with state of its own, saved in checkpoints: curricula, running baselines, replay buffers."""

    def state_dict(self) -> dict[str, Any]:
        """State as JSON values and tensors, nested in dicts and lists."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


@runtime_checkable
class Reports(Protocol):
    """A sampler or an objective with numbers of its own for the step's metrics."""

    def report(self) -> Mapping[str, float]:
        """Scalars by metric name (``area/name``): of the last call of ``sample``, or of the update just made."""


@runtime_checkable
class Evaluates(Protocol):
    """A component with numbers of its own on an evaluation; asked once per evaluation, for all its rollouts."""

    def evaluate(self, groups: Sequence[RolloutGroup]) -> Mapping[str, float]:
        """Scalars by name, reported as ``eval/<name>``: the same names each time, nan where one cannot be told.

        A search by a name that an evaluation lacks ends there.
        """


@runtime_checkable
class StepsTogether(Protocol):
    """An environment that opens and steps many of its episodes in one call, as one with processes of its own can.

    Called instead of the episodes' own ``open`` and ``step``. Answers come in the order of the episodes; an exception
    in an answer's place fails that episode alone, one that is raised fails all of the call.
    """

    def open_together(self, episodes: Sequence[Episode]) -> Sequence[Observation | Exception]:
        """Begin episodes that ``start`` returned; what ``Episode.open`` of each would return."""

    def step_together(self, episodes: Sequence[Episode], actions: Sequence[Action]) -> Sequence[Feedback | Exception]:
        """Apply one action to each episode; what ``Episode.step`` of each would return."""


@runtime_checkable
class Bounded(Protocol):
    """A policy whose contexts are of limited length: a demonstration that does not fit fails, and no other with it."""

    def room(self, contexts: Sequence[Context]) -> Sequence[int]:
        """Tokens that an action may have in each context; 0 or less where the context itself is too long."""


@runtime_checkable
class Prepares(Protocol):
    """A policy that must know, before anything else, what world it acts in and which statistics it will owe."""

    def prepare(self, environment: Environment, wanted: frozenset[Column]) -> None:
        """Called once after all components are built; size inputs and heads (``Column.VALUE``) here."""


@runtime_checkable
class HoldsActivations(Protocol):
    """A policy that knows what its passes cost, so that ``update.micro_batch_tokens: auto`` fits in memory."""

    def bytes_per_token(self, wanted: frozenset[Column]) -> float:
        """Bytes that each padded token of a pass holds for the backward pass; asked once, before the first update.

        :param wanted: columns a training pass computes
        """


@runtime_checkable
class BetweenRounds(Protocol):
    """An objective that chooses where the next round starts."""

    def between_rounds(self, trained: Mapping[str, Tensor], previous: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights to sample from, to refer to and to train on from, given the results of the last two rounds.

        Parameters by name. A trial's result is always the trained weights, never these.
        """


@runtime_checkable
class ScalesGradient(Protocol):
    """An objective that scales its gradient by norms measured over the whole mini-batch."""

    def factor(self, norms: Mapping[str, float]) -> float:
        """Factor for the gradient of the terms with ``scaled``.

        :param norms: L2 norm of each probe's gradient by the probe's name, and of the scaled loss terms as ``loss``
        """
