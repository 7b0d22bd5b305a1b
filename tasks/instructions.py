"""Answers to instructions, judged by how well a model predicts them: the data of QTHA, and GSM8K.

The QTHA paper (arXiv:2503.12790) reports losses and perplexities on R1-Distill-SFT and CPsyCounD.
Here too an item is the answer given its prompt: only the answer's tokens are scored. The prompts
are plain text in the data's language, without a chat template, so that base models read them too.
Answers longer than a model's window are read in several.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quanta_bench.task import (
    Example,
    Fractions,
    HubRows,
    JsonRows,
    MissingDataError,
    Prompt,
    RequestRows,
    Source,
    Split,
    Task,
)
from tasks.places import CARVED, Place, read_split, twin_key

CALCULATION = re.compile(r"<<[^<>]*>>")
"""GSM8K's marks for a calculator, as in ``48/2 = <<48/2=24>>24``."""


class InstructionTask(Task):
    """A prompt and its answer. ``fields`` of its items hold both, as ``prompt`` and ``answer``."""

    kind = "perplexity"
    metric = "perplexity"
    places: ClassVar[Mapping[str, Place]]
    space: ClassVar[str] = " "
    """What stands between prompt and answer; it belongs to the answer."""

    @abstractmethod
    def pair(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Prompt and answer of a row."""

    @abstractmethod
    def opening(self, row: Mapping[str, Any]) -> str:
        """The text that rows of a group share."""

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row.

        Raises:
            ValueError: its answer is empty.
            KeyError, TypeError, AttributeError: the row has another form.
        """
        prompt, answer = self.pair(row)
        if not answer.strip():
            raise ValueError("the answer is empty")
        return Example(
            name, twin_key(self.opening(row)), {"prompt": prompt, "answer": answer.strip()}
        )

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in the order of their rows."""
        place = self.places.get(source.kind)
        if place is None:
            raise MissingDataError(
                f"The {source.kind} data hold no rows of {self.title}. Use --source hub, or "
                "--source local:DIR with a copy in DIR; the task 'gsm8k_rationales' works offline."
            )
        return read_split(self, place, source, split, self.example)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The prompt as context, the answer as what is predicted."""
        return Prompt(example.fields["prompt"], target=self.space + example.fields["answer"])


class R1DistillSFT(InstructionTask):
    """Problems with the reasoning and answers of a DeepSeek-R1 distillation, from ServiceNow-AI.

    Of the two configurations this is ``v0``, about 172,000 rows. It has one split, which is cut by
    problem. ``local:DIR`` is a folder with a copy: ``DIR/R1-Distill-SFT/v0/train*.parquet``,
    ``.jsonl`` or ``.json``.
    """

    name = "r1_distill_sft"
    title = "R1-Distill-SFT"
    grouped_by = "problem"
    places = dict.fromkeys(
        ("hub", "local"),
        Place(
            HubRows("ServiceNow-AI/R1-Distill-SFT", "v0", "train"),
            fractions=Fractions(train=0.9, validation=0.05),
        ),
    )

    def pair(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """The problem; the reasoning between its marks, and the answer after it."""
        return f"Problem: {self.opening(row)}\nSolution:", row["reannotated_assistant_content"]

    def opening(self, row: Mapping[str, Any]) -> str:
        """The problem, which several rows may have answers to."""
        return str(row["problem"].strip())


class CPsyCounD(InstructionTask):
    """Counselling dialogues in Chinese (Zhang et al. 2024, arXiv:2405.16433): the next answer.

    The hub has one row a turn and one split, which is cut by dialogue. ``local:DIR`` is a folder
    with ``DIR/cpsycoun/train.json`` and ``test.json``, in the same form; validation is cut from
    the former. All turns of a dialogue open with the same words and stay together.
    """

    name = "cpsycound"
    title = "CPsyCounD"
    grouped_by = "dialogue"
    space = ""
    places = {
        "hub": Place(
            HubRows("CAS-SIAT-XinHai/CPsyCoun", None, "train"),
            fractions=Fractions(train=0.8, validation=0.1),
        ),
        "local": Place(
            JsonRows("cpsycoun/train.json"),
            test=JsonRows("cpsycoun/test.json"),
            fractions=CARVED,
            disjoint=True,
        ),
    }

    def pair(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """The dialogue so far, a line a turn; the counsellor's answer."""
        turns = [*earlier(row), (row["instruction"], "")]
        said = "\n".join(
            f"来访者：{client.strip()}\n咨询师：{counsellor.strip()}"
            for client, counsellor in turns
        )
        return said, row["output"]

    def opening(self, row: Mapping[str, Any]) -> str:
        """The client's first words."""
        turns = earlier(row)
        return turns[0][0] if turns else str(row["instruction"])


def earlier(row: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The turns before a row's, of client and counsellor; a dialogue's first row has none."""
    return row["history"] or ()


class GSM8KRationales(InstructionTask):
    """Word problems of GSM8K (Cobbe et al. 2021, arXiv:2110.14168) with their worked answers.

    The marks for a calculator are taken out; the last line is ``#### 18``, as published. Embedded,
    the published test rows are cut into all three splits by question. ``local:DIR`` is a folder
    with ``DIR/gsm8k/train.jsonl`` and ``test.jsonl``.
    """

    name = "gsm8k_rationales"
    title = "GSM8K text"
    grouped_by = "question"
    places = {
        "embedded": Place(RequestRows("gsm8k/gold_bpb_5shot")),
        "hub": Place(
            HubRows("openai/gsm8k", "main", "train"),
            test=HubRows("openai/gsm8k", "main", "test"),
            fractions=CARVED,
            disjoint=True,
        ),
        "local": Place(
            JsonRows("gsm8k/train.jsonl"),
            test=JsonRows("gsm8k/test.jsonl"),
            fractions=CARVED,
            disjoint=True,
        ),
    }

    def pair(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """The question; the worked answer."""
        return f"Question: {self.opening(row)}\nAnswer:", CALCULATION.sub("", row["answer"])

    def opening(self, row: Mapping[str, Any]) -> str:
        """The question."""
        return str(row["question"].strip())
