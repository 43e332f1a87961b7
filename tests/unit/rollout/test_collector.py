"""The collector plays episodes side by side, pays turns, marks failures and counts every token."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.contract.types import Action, Context, Feedback, RolloutRequest, Sampling, Score, Speaks, Stop, Task
from orchestrator.errors import ContextError
from orchestrator.rollout.collector import Collector


class Echo:
    """A policy without weights: says its context's length, seed and count of actions so far."""

    speaks = Speaks.MESSAGES

    def __init__(self):
        self.calls: list[int] = []

    def act(self, contexts: Sequence[Context], sampling: Sequence[Sampling]) -> list[Action]:
        self.calls.append(len(contexts))
        return [
            Action(
                tokens=(context.seed % 97, len(context.actions)),
                logprobs=(-0.5, -0.25),
                text=str(context.seed),
                context_tokens=10,
            )
            for context in contexts
        ]

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(map(ord, text)) for text in texts]


class Counting:
    """Episodes of ``task.metadata["turns"]`` turns that pay the turn's number; ``breaks`` names a turn that raises."""

    speaks = Speaks.MESSAGES

    def __init__(self):
        self.closed = 0

    def tasks(self, split):
        return [Task(id=str(n), metadata={"turns": n}) for n in range(1, 4)]

    def start(self, task, seed):
        return _CountingEpisode(self, task)


class _CountingEpisode:
    def __init__(self, world, task):
        self.world, self.task, self.turn = world, task, 0

    def open(self):
        return ({"role": "user", "content": f"task {self.task.id}"},)

    def step(self, action):
        self.turn += 1
        if self.turn == self.task.metadata.get("breaks"):
            raise KeyError("the game hung")
        done = self.turn >= self.task.metadata["turns"]
        return Feedback(
            observation=({"role": "user", "content": f"turn {self.turn}"},),
            reward=float(self.turn),
            done=done,
            metrics={"correct": float(done), "text": float(len(action.text))},
            truncated=done and bool(self.task.metadata.get("cut")),
        )

    def close(self):
        self.world.closed += 1


class Crowd:
    """Three agents; agent ``b`` waits out the first step, ``c`` joins in the second."""

    speaks = Speaks.MESSAGES

    def tasks(self, split):
        return [Task(id="crowd")]

    def start(self, task, seed):
        return _CrowdEpisode()


class _CrowdEpisode:
    def __init__(self):
        self.clock = 0

    def open(self):
        return {"a": _say("a0"), "b": _say("b0")}

    def step(self, actions):
        self.clock += 1
        if self.clock == 1:
            assert set(actions) == {"a", "b"}
            return {
                "a": Feedback(observation=_say("a1"), reward=1.0, done=False),
                "b": Feedback(observation=None, reward=2.0, done=False),
                "c": Feedback(observation=_say("c1"), reward=0.0, done=False),
            }
        assert set(actions) == {"a", "c"}
        return {
            "a": Feedback(observation=None, reward=4.0, done=True),
            "c": Feedback(observation=None, reward=8.0, done=True),
        }

    def close(self):
        pass


def _say(text):
    return ({"role": "user", "content": text},)


def _task(turns: int, **metadata) -> Task:
    return Task(id=f"t{turns}", metadata={"turns": turns, **metadata})


def test_turns_are_paid_in_order_and_scored_as_the_episode_paid():
    collect = Collector(Counting(), Echo())

    [group] = collect([RolloutRequest(task=_task(3), count=2)])

    assert [[turn.reward for turn in rollout.turns] for rollout in group.rollouts] == [[1.0, 2.0, 3.0]] * 2
    assert group.scores == (Score(value=6.0, turns=(1.0, 2.0, 3.0)),) * 2
    assert group.rollouts[0].metrics["correct"] == 1.0
    assert [turn.observation[0]["content"] for turn in group.rollouts[0].turns] == ["task t3", "turn 1", "turn 2"]


def test_open_episodes_act_in_one_call_and_finished_ones_leave_it():
    policy = Echo()
    collect = Collector(Counting(), policy)

    collect([RolloutRequest(task=_task(n), count=2) for n in (1, 2, 3)])

    assert policy.calls == [6, 4, 2]
    assert collect.cost.generated_tokens == 2 * (6 + 4 + 2)
    assert collect.cost.prompt_tokens == 10 * (6 + 4 + 2)


def test_fewer_places_than_episodes_change_nothing_but_the_calls():
    wide, narrow = Collector(Counting(), Echo(), seed=3), Collector(Counting(), Echo(), seed=3, concurrent=2)
    requests = [RolloutRequest(task=_task(n), count=3) for n in (1, 3)]

    assert wide(requests) == narrow(requests)


def test_seeds_follow_step_task_and_place_and_a_second_stage_continues_the_places():
    collect = Collector(Counting(), Echo(), seed=1)
    collect.begin(5)
    [both] = collect([RolloutRequest(task=_task(1), count=4)])
    collect.begin(5)
    [first] = collect([RolloutRequest(task=_task(1), count=2)])
    [second] = collect([RolloutRequest(task=_task(1), count=2)])
    collect.begin(6)
    [later] = collect([RolloutRequest(task=_task(1), count=4)])

    seeds = [rollout.seed for rollout in both.rollouts]
    assert [r.seed for r in (*first.rollouts, *second.rollouts)] == seeds
    assert [r.index for r in (*first.rollouts, *second.rollouts)] == [0, 1, 2, 3]
    assert len({*seeds, *(rollout.seed for rollout in later.rollouts)}) == 8


def test_an_episode_that_raises_is_marked_named_and_kept_out():
    environment = Counting()
    collect = Collector(environment, Echo(), labels={"environment": "'worlds' (stranger 1.2) in environment 'w'"})

    groups = collect([RolloutRequest(task=_task(3, breaks=2), count=2), RolloutRequest(task=_task(1), count=1)])

    assert [len(group.rollouts) for group in groups] == [0, 1]
    assert [str(rollout.error) for rollout in collect.failures] == [
        "KeyError: 'the game hung'; raised by plugin 'worlds' (stranger 1.2) in environment 'w'"
    ] * 2
    assert collect.cost.failed_rollouts == 2
    assert collect.cost.generated_tokens == 2 * (3 + 2)  # also what the failed ones said
    assert environment.closed == 3


class CountingTogether(Counting):
    """The same episodes, opened and stepped in one call; ``short`` forgets an answer, ``bad`` tasks do not open."""

    short = False

    def __init__(self):
        super().__init__()
        self.calls = []

    def start(self, task, seed):
        if task.metadata.get("unstarted"):
            raise OSError("no such game")
        return super().start(task, seed)

    def open_together(self, episodes):
        self.calls.append(("open", len(episodes)))
        return [OSError("lost") if e.task.metadata.get("bad") else e.open() for e in episodes]

    def step_together(self, episodes, actions):
        self.calls.append(("step", len(episodes)))
        answers = []
        for episode, action in zip(episodes, actions, strict=True):
            try:
                answers.append(episode.step(action))
            except KeyError as error:
                answers.append(error)
        return answers[: len(answers) - self.short]


def test_an_environment_that_steps_its_episodes_together_changes_nothing_but_the_calls():
    requests = [RolloutRequest(task=_task(n), count=2) for n in (1, 2, 3)]
    requests += [
        RolloutRequest(task=replace(_task(2), id="shown", demonstration=("a", "b")), count=1, demonstrate=True)
    ]
    world = CountingTogether()
    collect = Collector(world, Echo(), seed=5)

    assert collect(requests) == Collector(Counting(), Echo(), seed=5)(requests)
    assert world.calls == [("open", 7), ("step", 7), ("step", 5), ("step", 2)]
    assert world.closed == 7
    assert collect.cost.environment_seconds > 0


def test_episodes_stepped_together_fail_one_by_one():
    world = CountingTogether()
    collect = Collector(world, Echo(), labels={"environment": "games 1.0"})

    groups = collect(
        [
            RolloutRequest(task=_task(2), count=1),
            RolloutRequest(task=_task(3, breaks=2), count=1),
            RolloutRequest(task=_task(1, bad=True), count=1),
            RolloutRequest(task=_task(4, unstarted=True), count=1),
            RolloutRequest(task=replace(_task(5), demonstration=("a",)), count=1, demonstrate=True),
        ]
    )

    assert [len(group.rollouts) for group in groups] == [1, 0, 0, 0, 0]
    errors = [str(rollout.error) for rollout in collect.failures]
    assert [error.partition(";")[0].partition(" ended")[0] for error in errors] == [
        "KeyError: 'the game hung'",
        "OSError: lost",
        "OSError: no such game",
        "ValueError: the demonstration of task 't5'",
    ]
    assert all("raised by plugin games 1.0" in error for error in errors)
    assert world.closed == 4


def test_too_few_answers_fail_every_episode_of_the_call_and_say_so_once():
    world = CountingTogether()
    world.short = True
    collect = Collector(world, Echo(), labels={"environment": "games 1.0"})

    collect([RolloutRequest(task=_task(2), count=2)])

    errors = [str(rollout.error) for rollout in collect.failures]
    assert len(errors) == 2
    assert all("step_together returned 1 answers for 2 episodes" in error for error in errors)
    assert all(error.count("raised by plugin") == 1 for error in errors)


def test_a_reward_that_raises_marks_its_group_only():
    class Picky:
        def score(self, group):
            if group.task.id == "t1":
                raise RuntimeError("no judge")
            return [Score(value=1.0)] * len(group.rollouts)

    class Calm:
        def score(self, group):
            return [Score(value=0.0)] * len(group.rollouts)

    rewards = [("calm", 1.0, Calm()), ("picky", 2.0, Picky())]
    labels = {"reward/calm": "'a' (x 1) in reward 'calm'", "reward/picky": "'judges' (x 1) in reward 'picky'"}
    collect = Collector(Counting(), Echo(), rewards, labels=labels)

    bad, good = collect([RolloutRequest(task=_task(n), count=2) for n in (1, 2)])

    assert bad.rollouts == bad.scores == ()
    assert [score.value for score in good.scores] == [2.0, 2.0]
    assert good.scores[0].parts == {"calm": 0.0, "picky": 1.0}
    assert str(collect.failures[0].error) == "RuntimeError: no judge; raised by plugin 'judges' (x 1) in reward 'picky'"
    assert collect.settle([bad, good]) == [good]


def test_a_play_over_the_turn_limit_is_cut_and_remembers_where():
    collect = Collector(Counting(), Echo(), max_turns=2)

    [group] = collect([RolloutRequest(task=_task(3), count=1)])

    [rollout] = group.rollouts
    assert rollout.stop == Stop.TURNS
    assert len(rollout.turns) == 2
    assert rollout.cut_at == _say("turn 2")


def test_a_play_the_environment_cuts_off_remembers_where():
    [group] = Collector(Counting(), Echo())([RolloutRequest(task=_task(1, cut=True), count=1)])

    assert group.rollouts[0].stop == Stop.TURNS
    assert group.rollouts[0].cut_at == _say("turn 1")


def test_demonstrations_are_played_through_the_episode_without_asking_the_policy():
    policy = Echo()
    collect = Collector(Counting(), policy)
    task = Task(id="d", metadata={"turns": 2}, demonstration=("go", "win"))

    [group] = collect([RolloutRequest(task=task, count=1, demonstrate=True)])

    [rollout] = group.rollouts
    assert rollout.demonstration
    assert [turn.action.text for turn in rollout.turns] == ["go", "win"]
    assert rollout.turns[1].action.tokens == (119, 105, 110)
    assert group.scores[0].value == 3.0
    assert policy.calls == []
    assert collect.cost.generated_tokens == 0


def test_a_demonstration_shorter_than_its_episode_is_a_failed_rollout():
    collect = Collector(Counting(), Echo())
    task = Task(id="d", metadata={"turns": 2}, demonstration=("go",))

    [group] = collect([RolloutRequest(task=task, count=1, demonstrate=True)])

    assert group.rollouts == ()
    assert "demonstration of task 'd' ended before its episode" in str(collect.failures[0].error)


@pytest.mark.parametrize(("asked", "temperature"), [(None, 1.0), (Sampling(temperature=0.5), 0.5)])
def test_demonstrations_are_measured_at_temperature_one_unless_asked(asked, temperature):
    collect = Collector(Counting(), Echo(), sampling=Sampling(temperature=0.2, top_p=0.9, top_k=3, max_tokens=7))
    task = Task(id="d", metadata={"turns": 1}, demonstration=("go",))
    requests = [
        RolloutRequest(task=task, count=1, demonstrate=True, sampling=asked),
        RolloutRequest(task=task, count=1),
    ]

    shown, drawn = (group.rollouts[0] for group in collect(requests))

    assert shown.sampling.temperature == temperature
    assert (drawn.sampling.temperature, drawn.sampling.top_p, drawn.sampling.top_k) == (0.2, 0.9, 3)
    if asked is None:
        assert shown.sampling == Sampling(max_tokens=7)


def test_a_demonstration_that_does_not_fit_the_policy_fails_alone():
    class Small(Echo):
        def room(self, contexts):
            return [4 - len(context.actions) for context in contexts]

    collect = Collector(Counting(), Small())
    long, short = (
        Task(id=id_, metadata={"turns": 2}, demonstration=said)
        for id_, said in (("long", ("go", "abcd")), ("short", ("abcd", "abc")))
    )

    groups = collect([RolloutRequest(task=task, count=1, demonstrate=True) for task in (long, short)])

    assert [len(group.rollouts) for group in groups] == [0, 1]
    [failed] = collect.failures
    assert failed.task_id == "long"
    assert "turn 2 of the demonstration has 4 tokens, and the policy's window has room for 3" in str(failed.error)


def test_agents_of_one_world_act_in_one_call_and_become_siblings():
    policy = Echo()

    [group] = Collector(Crowd(), policy)([RolloutRequest(task=Task(id="crowd"), count=2)])

    assert policy.calls == [4, 4]
    plays = {rollout.agent: rollout for rollout in group.rollouts[:3]}
    assert [rollout.agent for rollout in group.rollouts] == ["a", "b", "c"] * 2
    assert [(turn.step, turn.reward) for turn in plays["a"].turns] == [(0, 1.0), (1, 4.0)]
    assert [(turn.step, turn.reward) for turn in plays["b"].turns] == [(0, 2.0)]
    assert [(turn.step, turn.reward) for turn in plays["c"].turns] == [(1, 8.0)]


def test_a_context_the_policy_cannot_act_in_fails_its_own_rollout_only():
    class Narrow(Echo):
        def act(self, contexts, sampling):
            full = [place for place, context in enumerate(contexts) if len(context.actions) == 2]
            if full:
                raise ContextError("the window is full", full)
            return super().act(contexts, sampling)

    environment = Counting()
    collect = Collector(environment, Narrow(), labels={"policy": "'models' (y 2) in policy 'm'"})

    long, short = collect([RolloutRequest(task=_task(n), count=2) for n in (3, 2)])

    assert long.rollouts == ()
    assert len(short.rollouts) == 2
    assert [str(rollout.error) for rollout in collect.failures] == [
        "ContextError: the window is full; raised by plugin 'models' (y 2) in policy 'm'"
    ] * 2
    assert environment.closed == 4
    assert collect.cost.generated_tokens == 2 * (4 + 4)


def test_a_policy_that_raises_stops_the_trial_with_its_name():
    class Broken(Echo):
        def act(self, contexts, sampling):
            raise ValueError("out of memory")

    collect = Collector(Counting(), Broken(), labels={"policy": "'models' (y 2) in policy 'm'"})

    with pytest.raises(ValueError, match="out of memory") as raised:
        collect([RolloutRequest(task=_task(1), count=1)])

    assert raised.value.__notes__ == ["raised by plugin 'models' (y 2) in policy 'm'"]


def test_an_environment_that_pays_no_number_fails_the_rollout():
    class Broke(Counting):
        def start(self, task, seed):
            episode = super().start(task, seed)
            step = episode.step
            episode.step = lambda action: replace(step(action), reward=float("nan"))
            return episode

    collect = Collector(Broke(), Echo(), labels={"environment": "'games' (x 1) in environment 'g'"})

    [group] = collect([RolloutRequest(task=_task(1), count=1)])

    assert group.rollouts == ()
    assert collect.failures[0].error.blamed == "'games' (x 1) in environment 'g'"
    assert "the reward of step 0 is nan; expected a finite number" in str(collect.failures[0].error)
