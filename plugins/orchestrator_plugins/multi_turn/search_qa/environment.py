"""The environment ``search_qa``: answer a question by searching a user's own passages, several turns long."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator

from orchestrator.api import Action, Feedback, Finish, Messages, Speaks, Split, Task

from ..ranges import Range, range_of, wanted_range
from ..worlds_config import SearchQAConfig
from .files import Corpus, Question, read_corpus
from .index import Index
from .scoring import exact_match, f1, normalise
from .turns import Act, read_turn, write_passages, write_turn

WRONG_FORM = "That turn had the wrong form. {form}"
NO_SEARCH_LEFT = "No search is left. Give your answer between <answer> and </answer>."


class SearchQA:
    """Questions with a search tool; ranges of questions share none.

    A task's reference is the first right answer; its metadata hold ``question``, ``answers``, ``passages`` (ids of
    those that answer it) and ``level`` (``hops-2`` where two are needed).
    """

    speaks = Speaks.MESSAGES

    def __init__(self, config: SearchQAConfig):
        """Read the files and index the passages.

        :raises ValueError: when a file is malformed, or a split has no question
        :raises ModuleNotFoundError: when ``bm25s`` is not installed
        """
        self.config = config
        corpus = read_corpus(config.passages, config.questions, config.eval_questions)
        self._titles = {passage.id: passage.title for passage in corpus.passages}
        self.index = Index(corpus.passages)
        self._tasks = {split: self._chosen(corpus, split) for split in Split}

    def tasks(self, split: Split) -> Iterator[Task]:
        """Questions in the files' order."""
        return iter(self._tasks[Split(split)])

    def start(self, task: Task, seed: int) -> SearchQAEpisode:
        """Play one question; nothing in it is random."""
        return SearchQAEpisode(self.config, self.index, task)

    def _chosen(self, corpus: Corpus, split: Split) -> list[Task]:
        wanted, config = wanted_range(self.config, split), self.config
        placed = list(_placed(corpus))
        questions = [question for question, place in placed if place is wanted]
        tasks = [self._task(f"qa-{wanted}-{place}", question) for place, question in enumerate(questions)]
        if wanted is Range.DEMONSTRATIONS:
            tasks = [task for task in tasks if task.demonstration is not None]
        if not tasks:
            key = "train_on" if split is Split.TRAIN else "evaluate_on"
            shares = Counter(place for _, place in placed)
            there = ", ".join(f"{shares[place]} {place}" for place in Range)
            hint = "; a demonstration needs `passages` that a search finds" if questions else ""
            raise ValueError(
                f"{key}: {wanted}: no question of {config.questions or 'the built-in file'} is left for it{hint}. Each "
                f"question's text decides what it is for: {there}. Give more questions, or a file of eval_questions"
            )
        return tasks[: config.train_tasks if split is Split.TRAIN else config.eval_tasks]

    def _task(self, name: str, question: Question) -> Task:
        config = self.config
        said = config.template.replace("{question}", question.question).replace("{searches}", str(config.max_searches))
        return Task(
            id=name,
            prompt=_said(said),
            reference=question.answers[0],
            demonstration=self._demonstrate(question),
            metadata={
                "question": question.question,
                "answers": list(question.answers),
                "passages": list(question.passages),
                "level": f"hops-{len(question.passages) or 1}",
            },
        )

    def _demonstrate(self, question: Question) -> tuple[str, ...] | None:
        """Search for each passage that answers the question, then answer; None where a search does not find it."""
        names = question.passages
        if not names or len(names) > self.config.max_searches:
            return None
        played = []
        for name in names:
            query = next((query for query in self._queries(question, name) if self._finds(query, name)), None)
            if query is None:
                return None
            played.append(write_turn(f"I need to know more about {query}.", Act.SEARCH, query))
        return (*played, write_turn("I have found what I need.", Act.ANSWER, question.answers[0]))

    def _queries(self, question: Question, name: str) -> list[str]:
        return [query for query in (self._titles[name], question.question) if query]

    def _finds(self, query: str, name: str) -> bool:
        return name in [passage.id for passage in self.index.search(query, self.config.top_k)]


class SearchQAEpisode:
    """One question; pays once, for the answer.

    Metrics: ``correct`` (exact match), ``f1``, ``max_score`` (1), ``searches``, ``malformed`` (turns of the wrong form,
    or that search when no search is left), ``found`` (share of the passages that answer the question that were shown),
    and ``answer_id`` once an answer is given. The limit on turns is a rule: who reaches it has lost.
    """

    def __init__(self, config: SearchQAConfig, index: Index, task: Task):
        assert isinstance(task.prompt, tuple)
        self._config, self._index, self._prompt = config, index, task.prompt
        self._answers: list[str] = list(task.metadata["answers"])
        self._wanted = set(task.metadata["passages"])
        self._shown: set[str] = set()
        self._left = config.turns
        self._metrics = {"correct": 0.0, "f1": 0.0, "max_score": 1.0, "searches": 0.0, "malformed": 0.0}
        if self._wanted:
            self._metrics["found"] = 0.0

    def open(self) -> Messages:
        return self._prompt

    def step(self, action: Action) -> Feedback:
        self._left -= 1
        cut = action.finish is Finish.LENGTH
        said = None if cut else read_turn(action.text or "", think=self._config.think == "required")
        if said is not None and said.act is Act.ANSWER:
            return self._answer(said.text)
        if said is None:
            shown = WRONG_FORM.format(form=form(self._config))
        elif self._metrics["searches"] >= self._config.max_searches:
            said, shown = None, NO_SEARCH_LEFT
        else:
            shown = self._search(said.text)
        self._metrics["malformed"] += said is None
        done = not self._left or (cut and self._config.cut_action == "ends")
        return self._feedback(None if done else _said(shown), 0.0)

    def close(self) -> None:
        pass

    def _search(self, query: str) -> str:
        passages = self._index.search(query, self._config.top_k)
        self._metrics["searches"] += 1
        self._shown |= {passage.id for passage in passages} & self._wanted
        if self._wanted:
            self._metrics["found"] = len(self._shown) / len(self._wanted)
        return write_passages(passages, self._config.passage_characters)

    def _answer(self, answer: str) -> Feedback:
        right, overlap = float(exact_match(answer, self._answers)), f1(answer, self._answers)
        self._metrics |= {
            "correct": right,
            "f1": overlap,
            "answer_id": float(zlib.crc32(normalise(answer).encode())),
        }
        return self._feedback(None, right if self._config.reward == "exact" else overlap)

    def _feedback(self, observation: Messages | None, reward: float) -> Feedback:
        return Feedback(observation=observation, reward=reward, done=observation is None, metrics=dict(self._metrics))


def form(config: SearchQAConfig) -> str:
    """The form of a turn in words."""
    thought = "<think>your thoughts</think>" if config.think == "required" else ""
    return f"Write {thought}<search>a query</search> or {thought}<answer>your answer</answer> and nothing else."


def _placed(corpus: Corpus) -> Iterator[tuple[Question, Range]]:
    """Each question with its range. With a file of evaluation questions, the other file holds none."""
    if corpus.eval_questions is None:
        for question in corpus.questions:
            yield question, range_of(question.question)
        return
    held = {question.question for question in corpus.eval_questions}
    for question in corpus.questions:
        if question.question not in held:
            yield question, range_of(question.question, evaluation=False)
    for question in corpus.eval_questions:
        yield question, range_of(question.question, training=False)


def _said(text: str) -> Messages:
    return ({"role": "user", "content": text},)
