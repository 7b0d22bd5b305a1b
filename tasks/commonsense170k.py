"""COMMONSENSE170K (Hu et al. 2023, arXiv:2304.01933): eight tasks' training rows in one file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from quanta_bench.task import (
    Answer,
    Example,
    HubRows,
    JsonRows,
    MissingDataError,
    Prompt,
    Source,
    SourceError,
    Split,
    Task,
)
from tasks.arc import ArcEasy
from tasks.boolq import BoolQ
from tasks.commonsense import CommonsenseTask
from tasks.hellaswag import HellaSwag
from tasks.piqa import PIQA
from tasks.places import parse_once
from tasks.siqa import SIQA
from tasks.winogrande import WinoGrande

VALIDATION_ROWS = 400
VALIDATION_SHARE = 0.05

# A row does not name its task. SIQA, ARC and OBQA share their opening; three answers after a
# situation count as SIQA, although a few ARC questions look the same, and all others as ARC, which
# shares its templates with OBQA. Only "choice-text" depends on the guess.
DELEGATES: tuple[type[CommonsenseTask], ...] = (BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ArcEasy)
SITUATION_CHOICES = 3


class Commonsense170K(Task):
    """Training rows of all eight tasks: 170,020 for training, 400 for validation."""

    name = "commonsense170k"
    title = "Commonsense170K"
    grouped_by = "what the item's own task groups by"
    protocols = CommonsenseTask.protocols
    max_new_tokens = CommonsenseTask.max_new_tokens
    stop = CommonsenseTask.stop

    def __init__(self, argument: str | None = None) -> None:
        super().__init__(argument)
        self._tasks = {delegate.name: delegate() for delegate in DELEGATES}

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        if split == "test":
            raise MissingDataError(
                "COMMONSENSE170K is for training and has no test rows; "
                "test on boolq, piqa, siqa, hellaswag, winogrande, arc_easy, arc_challenge, "
                "openbookqa."
            )
        if source.kind == "embedded":
            raise MissingDataError(
                "COMMONSENSE170K is not in the embedded data. Use 'local:DIR' with a checkout of "
                "LLM-Adapters (ft-training_set/commonsense_170k.json) or 'hub', or train on the "
                "eight tasks themselves, which work offline."
            )
        location = (
            JsonRows("ft-training_set/commonsense_170k.json")
            if source.kind == "local"
            # A widely used third-party copy; not checked against the original.
            else HubRows("zwhe99/commonsense_170k", None, "train")
        )
        rows = source.rows(location)
        items = parse_once(
            source,
            self.name,
            rows,
            lambda: [self._example(row, number) for number, row in enumerate(rows)],
        )
        held_out = validation_groups([item.group for item in items])
        return [item for item in items if (item.group in held_out) == (split == "validation")]

    def _example(self, row: dict[str, str], number: int) -> Example:
        for task in self._tasks.values():
            try:
                example = task.example(row, f"{self.name}/{number}")
            except (KeyError, ValueError, TypeError, AttributeError):
                continue
            fields = {**example.fields, "task": task.name}
            if task.name == SIQA.name and len(fields["choices"]) != SITUATION_CHOICES:
                continue
            return Example(example.id, f"{task.name}/{example.group}", fields, example.gold)
        raise SourceError(
            f"Row {number + 1} of commonsense_170k matches the layout of none of the eight tasks: "
            f"{str(row)[:120]}"
        )

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The prompt of the item's own task."""
        return self._tasks[example.fields["task"]].prompt(example, protocol)

    def judge_text(self, example: Example, text: str) -> Answer:
        """The judgement of the item's own task."""
        return self._tasks[example.fields["task"]].judge_text(example, text)


def validation_groups(groups: Sequence[str]) -> set[str]:
    """Groups that together hold the validation rows: exactly, or as closely as whole groups allow.

    Groups are taken in hash order, so the choice depends only on the rows. A group that would
    overshoot is skipped: twins stay together and the count is exact.
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    remaining = min(VALIDATION_ROWS, round(VALIDATION_SHARE * len(groups)))
    chosen = set()
    for group in sorted(sizes, key=lambda group: hashlib.sha256(group.encode()).digest()):
        if sizes[group] <= remaining:
            chosen.add(group)
            remaining -= sizes[group]
    return chosen
