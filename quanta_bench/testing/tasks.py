"""What every task has to do, as tests: subclass `TaskBattery` in a test module."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any, ClassVar, get_args

import pytest

from quanta_bench.errors import BenchError
from quanta_bench.plugins import PROTOCOLS, TASKS, find_protocol
from quanta_bench.sources.rows import KeptRows, parse_source
from quanta_bench.task import Example, Location, MissingDataError, Prompt, Source, Split, Task

SPLITS: tuple[Split, ...] = get_args(Split)


class TaskBattery:
    """The tests of a task. A subclass names it and a source that has its rows::

        class TestCommonsenseQA(TaskBattery):
            task = CommonsenseQA
            source = f"local:{DATA}"

    Class attributes:
        task: the class under test.
        source: where its rows are read: ``embedded`` or ``local:DIR``.
        argument: what follows the colon in ``--task name:argument``.
        protocols: the protocols to try, where the rows of this source do not allow all.
    """

    task: ClassVar[type[Task]]
    source: ClassVar[str] = "embedded"
    argument: ClassVar[str | None] = None
    protocols: ClassVar[tuple[str, ...] | None] = None

    @classmethod
    def make(cls) -> Task:
        """The task."""
        return cls.task(cls.argument)

    @classmethod
    def items(cls) -> dict[Split, tuple[Example, ...]]:
        """The items of each split, read once."""
        return _items(cls)  # type: ignore[arg-type]  # a class is hashable

    @classmethod
    def prompts(cls) -> Iterator[tuple[str, Example, Prompt]]:
        """The prompt of every item under every protocol that reads prompts."""
        task = cls.make()
        for protocol in cls.protocols or task.protocols:
            if find_protocol(protocol).prompts:
                for example in itertools.chain.from_iterable(cls.items().values()):
                    yield protocol, example, task.prompt(example, protocol)

    def test_it_is_registered_under_its_name(self) -> None:
        """Otherwise no command finds it."""
        name = self.task.name
        package = self.task.__module__.partition(".")[0]
        if name not in TASKS and package not in metadata.packages_distributions():
            pytest.skip(f"{name!r} is not installed yet; `pip install -e .` registers it")
        assert TASKS.get(name) is self.task

    def test_it_says_what_it_is(self) -> None:
        """Tables and help pages print these words."""
        task = self.make()
        assert task.title
        assert task.metric
        assert self.task.__doc__, "its first line stands in `quanta-bench tasks`"
        assert task.grouped_by, "`grouped_by` says what items of a group share"
        assert set(task.protocols) <= set(PROTOCOLS.names())
        assert task.kind in ("choice", "generate", "perplexity", "classify")

    def test_every_split_has_items(self) -> None:
        """A run trains on one, chooses its checkpoint on another and is scored on the third."""
        assert [split for split, items in self.items().items() if not items] == []

    def test_ids_are_unique(self) -> None:
        """Stored predictions are matched by them, over all splits."""
        ids = [item.id for items in self.items().values() for item in items]
        assert len(ids) == len(set(ids))

    def test_groups_stay_on_one_side_of_a_split(self) -> None:
        """Items of a group are near-duplicates: one that is trained on would give its twin away."""
        groups = {split: {item.group for item in items} for split, items in self.items().items()}
        for one, other in itertools.combinations(groups, 2):
            assert sorted(groups[one] & groups[other]) == [], f"in {one} and in {other}"

    def test_items_come_in_a_fixed_order(self) -> None:
        """A sample of them is drawn by position."""
        again = _read(self.make(), KeptRows(parse_source(self.source)))
        for split, items in self.items().items():
            assert [item.id for item in again[split]] == [item.id for item in items]

    @pytest.mark.parametrize("kind", ["embedded", "hub", "local"])
    def test_a_source_without_its_rows_is_refused(self, kind: str) -> None:
        """By `MissingDataError`, so that a table prints a dash with the reason and goes on."""
        task = self.make()
        if not task.reads_source:
            pytest.skip("it reads a file of the user's own")
        with pytest.raises(MissingDataError) as refused:
            task.examples(_NothingHere(kind), "test")
        assert len(str(refused.value)) > 20, "the message says what was looked for, and where"

    def test_prompts_are_text_and_answer(self) -> None:
        """The space between them belongs to the answer: " A" and "A" are different tokens."""
        for protocol, item, prompt in self.prompts():
            where = f"{item.id} under {protocol}"
            assert prompt.target.strip(), where
            if prompt.candidates:
                assert prompt.context == prompt.context.rstrip(" "), where
                assert len(prompt.candidates) > 1, where
                assert all(candidate.strip() for candidate in prompt.candidates), where
                assert item.gold is not None, where
                assert prompt.target == prompt.candidates[item.gold], where

    def test_the_right_answer_scores_and_another_does_not(self) -> None:
        """Under every protocol, for every item."""
        task = self.make()
        for protocol, item, prompt in self.prompts():
            where = f"{item.id} under {protocol}"
            if prompt.candidates and item.gold is not None:
                wrong = (item.gold + 1) % len(prompt.candidates)
                right, other = task.judge_choice(item, item.gold), task.judge_choice(item, wrong)
                assert right.prediction == right.gold, where
                assert other.prediction != other.gold, where
            elif task.kind != "perplexity":
                right, other = task.judge_text(item, prompt.target), task.judge_text(item, "")
                assert right.scores.get(task.metric, 1.0) == 1.0, where
                assert other.scores.get(task.metric, 0.0) < 1.0, where
                assert other.prediction is None, f"{where}: an empty answer cannot be parsed"
            else:
                continue
            for answer in (right, other):
                assert all(0 <= score <= 1 for score in answer.scores.values()), where

    def test_the_metrics_are_those_it_names(self) -> None:
        """A suite whose column names another is refused before anything is computed."""
        task = self.make()
        if task.kind == "perplexity":
            pytest.skip("the suite itself computes perplexities")
        for protocol in self.protocols or task.protocols:
            answers = [
                task.judge_choice(item, item.gold)
                if prompt.candidates and item.gold is not None
                else task.judge_text(item, prompt.target)
                for of, item, prompt in self.prompts()
                if of == protocol
            ]
            if answers:
                found = task.aggregate(answers)
                assert {task.metric, *task.metrics} <= set(found)
                assert found[task.metric] == pytest.approx(1.0), "of right answers alone"

    def test_an_encoder_has_texts_and_targets(self) -> None:
        """The protocol `head` reads one text or a pair, and learns a class or a number."""
        task = self.make()
        if "head" not in task.protocols:
            pytest.skip("it is not for encoders")
        assert task.outputs >= 1
        for item in itertools.chain.from_iterable(self.items().values()):
            texts, target = task.texts(item), task.target(item)
            assert 1 <= len(texts) <= 2, item.id
            assert all(text.strip() for text in texts), item.id
            assert task.outputs == 1 or target in range(task.outputs), item.id


class _NothingHere:
    """A source of rows that has none, for any task."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def rows(self, location: Location) -> list[dict[str, Any]]:
        raise MissingDataError(f"There is no {location} in this empty source.")


def _read(task: Task, source: Source) -> dict[Split, tuple[Example, ...]]:
    return {split: tuple(task.examples(source, split)) for split in SPLITS}


@cache
def _items(battery: type[TaskBattery]) -> dict[Split, tuple[Example, ...]]:
    try:
        return _read(battery.make(), KeptRows(parse_source(battery.source)))
    except BenchError as error:
        pytest.fail(f"the rows of {battery.task.name!r} could not be read: {error}")
