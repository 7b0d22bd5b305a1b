"""The batteries find faults: each is put into a good method or task, and one test fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.outcomes import Failed
from torch import nn

from baselines.krona import Krona
from quanta_bench.method import Claim
from quanta_bench.task import Example, Prompt, Source, Split
from quanta_bench.testing.methods import MethodBattery
from quanta_bench.testing.tasks import TaskBattery
from tasks.piqa import PIQA


def fails(battery: Any, test: str, *arguments: Any) -> None:
    with pytest.raises((AssertionError, Failed)):
        getattr(battery(), test)(*arguments)


class MovesTheState(Krona):
    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        torch.rand(1)
        return super().adapt(model, seed)


class TrainsMore(Krona):
    def adapt(self, model: nn.Module, seed: int) -> nn.Module:
        adapted = super().adapt(model, seed)
        next(p for n, p in adapted.named_parameters() if "norm" in n).requires_grad_(True)
        return adapted


class MergesTwice(Krona):
    def merge(self, model: nn.Module) -> nn.Module:
        merged = super().merge(model)
        merged.model.layers[0].self_attn.q_proj.weight.data += 0.1  # type: ignore[union-attr,operator,index]
        return merged


class DeniesWithoutReason(Krona):
    cacheable = Claim(False)


class StartsElsewhere(Krona):
    exact_start = Claim(False, "it is random")


class OtherName(Krona):
    """Registered under the name of another class."""


METHOD_FAULTS = [
    (MovesTheState, "test_start_depends_on_the_seed_alone"),
    (TrainsMore, "test_only_declared_parameters_train"),
    (MergesTwice, "test_merged_equals_unmerged"),
    (DeniesWithoutReason, "test_it_says_what_it_is"),
    (StartsElsewhere, "test_start_equals_the_base_or_it_says_otherwise"),
    (OtherName, "test_it_is_registered_under_its_name"),
]


@pytest.mark.parametrize(("kind", "test"), METHOD_FAULTS)
def test_a_faulty_method_is_found(kind: type[Krona], test: str) -> None:
    fails(type("Battery", (MethodBattery,), {"method": kind}), test)


ROWS = tuple(
    Example(f"x/{n}", f"group {n}", {"question": f"q{n}", "choices": ("a", "b")}, gold=n % 2)
    for n in range(9)
)


class Fine(PIQA):
    """Nine items, three a split."""

    name = "fine"
    protocols = ("choice-text",)

    def examples(self, source: Source, split: Split) -> list[Example]:
        start = 3 * ("train", "validation", "test").index(split)
        return list(ROWS[start : start + 3])

    def prompt(self, example: Example, protocol: str) -> Prompt:
        return Prompt("Q:", (" a", " b"), (" a", " b")[example.gold or 0])


def changed(**members: Any) -> type[Fine]:
    return type("Changed", (Fine,), members)


def items(change: Callable[[Example, Split], Example]) -> Any:
    def examples(self: Any, source: Source, split: Split) -> Sequence[Example]:
        return [change(item, split) for item in Fine.examples(self, source, split)]

    return examples


def prompts(prompt: Prompt) -> Any:
    return lambda self, example, protocol: prompt


TASK_FAULTS: list[tuple[type[Fine], str, tuple[Any, ...]]] = [
    (changed(examples=items(lambda i, _: replace(i, id="same"))), "test_ids_are_unique", ()),
    (
        changed(examples=items(lambda i, _: replace(i, group="same"))),
        "test_groups_stay_on_one_side_of_a_split",
        (),
    ),
    (changed(examples=lambda *_: []), "test_every_split_has_items", ()),
    (changed(grouped_by=""), "test_it_says_what_it_is", ()),
    (changed(protocols=("no-such",)), "test_it_says_what_it_is", ()),
    (Fine, "test_a_source_without_its_rows_is_refused", ("hub",)),
    (
        changed(prompt=prompts(Prompt("Q: ", ("a", "b"), "a"))),
        "test_prompts_are_text_and_answer",
        (),
    ),
    (
        changed(prompt=prompts(Prompt("Q:", (" a", " b"), " a"))),
        "test_prompts_are_text_and_answer",
        (),
    ),
    (
        changed(judge_choice=lambda s, e, c: PIQA.judge_choice(s, e, 0)),
        "test_the_right_answer_scores_and_another_does_not",
        (),
    ),
    (changed(metrics=("f1",)), "test_the_metrics_are_those_it_names", ()),
]


def battery(task: type[Fine]) -> type[TaskBattery]:
    return type("Battery", (TaskBattery,), {"task": task, "source": f"local:{Path.cwd()}"})


@pytest.mark.parametrize(("task", "test", "arguments"), TASK_FAULTS)
def test_a_faulty_task_is_found(task: type[Fine], test: str, arguments: tuple[Any, ...]) -> None:
    fails(battery(task), test, *arguments)


@pytest.mark.parametrize(
    "test", sorted({test for _, test, arguments in TASK_FAULTS if not arguments})
)
def test_the_task_without_a_fault_passes(test: str) -> None:
    getattr(battery(Fine)(), test)()
