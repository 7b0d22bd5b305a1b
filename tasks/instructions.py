"""Perplexity of answers to instructions: the data sets of QTHA, and GSM8K.

The QTHA paper (arXiv:2503.12790) reports losses and perplexities on R1-Distill-SFT and CPsyCounD.
Here too only the tokens of the answer are scored, conditioned on its prompt. Prompts are plain text
in the language of the data, without a chat template, so that base models can be scored too. Answers
longer than a model's context window are scored in several windows.
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
"""GSM8K's calculator annotations, as in ``48/2 = <<48/2=24>>24``."""


class InstructionTask(Task):
    """A prompt and its answer. ``fields`` of its items hold both, as ``prompt`` and ``answer``."""

    kind = "perplexity"
    metric = "perplexity"
    places: ClassVar[Mapping[str, Place]]
    space: ClassVar[str] = " "
    """The separator between prompt and answer; it belongs to the answer."""

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
            KeyError, TypeError, AttributeError: the row has a different format.
        """
        prompt, answer = self.pair(row)
        if not answer.strip():
            raise ValueError("the answer is empty")
        return Example(
            name, twin_key(self.opening(row)), {"prompt": prompt, "answer": answer.strip()}
        )

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        place = self.places.get(source.kind)
        if place is None:
            raise MissingDataError(
                f"The {source.kind} data have no rows of {self.title}. Use --source hub, or "
                "--source local:DIR with a copy in DIR; the task 'gsm8k_rationales' works offline."
            )
        return read_split(self, place, source, split, self.example)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The prompt as context, the answer as target."""
        return Prompt(example.fields["prompt"], target=self.space + example.fields["answer"])


class R1DistillSFT(InstructionTask):
    """Problems with reasoning and answers distilled from DeepSeek-R1, by ServiceNow-AI.

    Uses the configuration ``v0`` of two, about 172,000 rows. Its one split is divided by problem.
    ``local:DIR`` is a folder with a copy: ``DIR/R1-Distill-SFT/v0/train*.parquet``,
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
        """The problem; the delimited reasoning, followed by the answer."""
        return f"Problem: {self.opening(row)}\nSolution:", row["reannotated_assistant_content"]

    def opening(self, row: Mapping[str, Any]) -> str:
        """The problem; several rows may answer the same problem."""
        return str(row["problem"].strip())


class CPsyCounD(InstructionTask):
    """Counselling dialogues in Chinese (Zhang et al. 2024, arXiv:2405.16433): the next reply.

    The hub has one row per turn and one split, which is divided by dialogue. ``local:DIR`` is a
    folder with ``DIR/cpsycoun/train.json`` and ``test.json`` in the same format; validation items
    are held out from the former. All turns of a dialogue share its first message and stay together.
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
        """The dialogue so far, one line per message; the counsellor's reply."""
        turns = [*earlier(row), (row["instruction"], "")]
        dialogue = "\n".join(
            f"来访者：{client.strip()}\n咨询师：{counsellor.strip()}"
            for client, counsellor in turns
        )
        return dialogue, row["output"]

    def opening(self, row: Mapping[str, Any]) -> str:
        """The client's first message."""
        turns = earlier(row)
        return turns[0][0] if turns else str(row["instruction"])


def earlier(row: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The earlier turns of a dialogue, as (client, counsellor); its first row has none."""
    return row["history"] or ()


class GSM8KRationales(InstructionTask):
    """Word problems of GSM8K (Cobbe et al. 2021, arXiv:2110.14168) with their worked answers.

    Calculator annotations are removed; the last line is ``#### 18``, as published. The embedded
    rows, the published test rows, are divided among all three splits by question. ``local:DIR`` is
    a folder with ``DIR/gsm8k/train.jsonl`` and ``test.jsonl``.
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
