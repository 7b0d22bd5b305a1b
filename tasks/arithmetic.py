"""Word problems with worked solutions (GSM8K, AQuA, MAWPS, SVAMP) and plain arithmetic.

In every source a solution is one line that ends in the answer, and generation stops at the first
line break or after 256 tokens (16 for plain arithmetic). The prompt has three forms, selected by
the task's argument:

==================  ================================================================================
``gsm8k``           ``Question: {question}``, a line break, ``Answer:``
``gsm8k:paper``     ``{question}``, a line break, ``Answer:``, as in the paper (table H.10)
``gsm8k:adapters``  LLM-Adapters' instruction prompt
==================  ================================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from quanta_bench.task import (
    Answer,
    Example,
    Fractions,
    HubRows,
    MissingDataError,
    Prompt,
    RequestRows,
    SavedRows,
    Source,
    Split,
    Task,
    UsageError,
    did_you_mean,
)
from tasks.answers import OPTIONS, judge, read_gold
from tasks.llm_adapters import wrap
from tasks.places import CARVED, CUT, Place, local, read_split

FORMS = ("paper", "adapters")

Problem = tuple[str, str, str]
"""Question, worked solution (may be empty) and answer of a row."""


class ArithmeticTask(Task):
    """Solve a problem step by step; the last number or option letter of the solution counts.

    Args:
        argument: the form of the prompt, ``paper`` or ``adapters``; ``None`` for the plain form.
    """

    kind = "generate"
    protocols = ("generate",)
    max_new_tokens = 256
    grouped_by = "question"
    places: ClassVar[Mapping[str, Place]]

    def __init__(self, argument: str | None = None) -> None:
        if argument is not None and argument not in FORMS:
            raise UsageError(
                f"The task {self.name!r} has no prompt form {argument!r}. "
                f"{did_you_mean(argument, FORMS)}"
            )
        super().__init__()
        self._form = argument

    @property
    def reference(self) -> str:
        """The task's name on the command line."""
        return self.name if self._form is None else f"{self.name}:{self._form}"

    def published(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row as the data set's authors publish it.

        Raises:
            KeyError: rows exist only in LLM-Adapters' format.
        """
        raise KeyError("instruction")

    def twin(self, question: str) -> str:
        """The text that near-twins share: the question without case and spaces."""
        return "".join(question.casefold().split())

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        return read_split(self, self.place(source), source, split, self.example)

    def place(self, source: Source) -> Place:
        """Where a source stores the rows.

        Raises:
            MissingDataError: the source does not have them.
        """
        if source.kind not in self.places:
            raise MissingDataError(
                f"{self.title} is not in the source {source.kind!r}; it is in "
                f"{' and '.join(self.places)} ('local' is local:DIR, a checkout of LLM-Adapters)."
            )
        return self.places[source.kind]

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row in the format of its authors or of LLM-Adapters.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: the row is neither.
        """
        if "instruction" in row:
            question, solution, answer = row["instruction"], row["output"], row["answer"]
        else:
            question, solution, answer = self.published(row)
        question, gold = one_line(question), read_gold(answer)
        group = hashlib.sha256(self.twin(question).encode()).hexdigest()[:16]
        fields = {"question": question, "solution": conclude(solution, gold)}
        return Example(name, group, fields, references=(gold,))

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The question in this task's prompt form, and its solution as target."""
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.reference!r} does not support the protocol {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        question, solution = example.fields["question"], example.fields["solution"]
        if self._form == "adapters":
            context, space = wrap(question)
            return Prompt(context, target=space + solution)
        opening = "" if self._form == "paper" else "Question: "
        return Prompt(f"{opening}{question}\nAnswer:", target=f" {solution}")

    def judge_text(self, example: Example, text: str) -> Answer:
        """Judge a text's last option letter if the gold answer is one, else its last number."""
        gold = example.references[0]
        predicted, correct = judge(text, gold)
        return Answer(predicted, gold, {self.metric: float(correct)})


def one_line(text: str) -> str:
    """Join the lines of a text; a line without closing punctuation gets a full stop."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ended = [line if line[-1] in ".!?:;" else f"{line}." for line in lines[:-1]]
    return " ".join([*ended, *lines[-1:]])


def conclude(solution: str, gold: str) -> str:
    """A solution on one line that ends in the answer, which is appended if it does not come last.

    Worked solutions often end in another number ("so 9 points in the 40 minutes"), and some
    model-written ones contradict the data set's answer.
    """
    solution = one_line(solution)
    if judge(solution, gold)[1]:
        return solution
    return one_line(f"{solution}\nThe answer is {gold}.")


class GSM8K(ArithmeticTask):
    """Grade-school problems (Cobbe et al. 2021, arXiv:2110.14168)."""

    name = "gsm8k"
    title = "GSM8K"
    places = {
        "embedded": Place(RequestRows("gsm8k/gold_bpb_5shot"), fractions=CUT),
        "hub": Place(
            HubRows("openai/gsm8k", "main", "train"),
            test=HubRows("openai/gsm8k", "main", "test"),
            fractions=CARVED,
        ),
        "local": local("gsm8k"),
    }

    def published(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row of ``openai/gsm8k``, without its calculator annotations."""
        steps, mark, answer = row["answer"].rpartition("####")
        if not mark:
            raise ValueError("'answer' has no '####' before the final answer")
        steps = re.sub(r"<<[^>]*>>", "", steps)
        return row["question"], f"{steps}\nThe answer is {read_gold(answer)}.", answer


class AQuA(ArithmeticTask):
    """Algebra problems with five options (Ling et al. 2017, arXiv:1705.04146)."""

    name = "aqua"
    title = "AQuA"
    places = {
        "hub": Place(
            HubRows("deepmind/aqua_rat", "raw", "train"),
            validation=HubRows("deepmind/aqua_rat", "raw", "validation"),
            test=HubRows("deepmind/aqua_rat", "raw", "test"),
            fractions=Fractions(train=1, validation=0),
        ),
        "local": local("AQuA"),
    }

    def published(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row of ``deepmind/aqua_rat``, with LLM-Adapters' list of options."""
        listed = []
        for letter, option in zip(OPTIONS, row["options"], strict=True):
            if not option.startswith(f"{letter})"):
                raise ValueError(f"the option {option!r} does not start with '{letter})'")
            listed.append(f"({letter}) {option[2:]}")
        question = f"{one_line(row['question'])} Answer Choices: {' '.join(listed)}"
        return question, row["rationale"], row["correct"]


class MAWPS(ArithmeticTask):
    """Problems from several collections (Koncel-Kedziorski et al. 2016).

    No data set on the hub has the 238 test problems that LLM-Adapters selected.
    """

    name = "mawps"
    title = "MAWPS"
    places = {"local": local("mawps")}


class SVAMP(ArithmeticTask):
    """Simple problems with varied wording (Patel et al. 2021, arXiv:2103.07191).

    LLM-Adapters, and therefore the paper, tests on all 1,000; the hub's test split has only 300.
    """

    name = "svamp"
    title = "SVAMP"
    places = {
        "hub": Place(
            HubRows("ChilleD/SVAMP", None, "train"),
            test=HubRows("ChilleD/SVAMP", None, "test"),
            fractions=CARVED,
        ),
        "local": local("SVAMP"),
    }

    def published(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row of ``ChilleD/SVAMP``, whose solution is an equation."""
        return row["question_concat"], "", row["Answer"]


class BasicArithmetic(ArithmeticTask):
    """Sums, differences, products and quotients of integers, as in "5 + 91 ="."""

    name = "basic_arithmetic"
    title = "Arithmetic"
    grouped_by = "sum"
    max_new_tokens = 16
    places = {
        "embedded": Place(SavedRows("allenai/basic_arithmetic/none/validation"), fractions=CUT)
    }

    def published(self, row: Mapping[str, Any]) -> Problem:
        """The expression of a row; its solution is just the result."""
        choices = row["choices"]
        result = choices["text"][choices["label"].index(row["answerKey"])]
        return row["question"], result, result

    def twin(self, question: str) -> str:
        """The expression, with the operands of + and * sorted."""
        return re.sub(
            r"(\d+)([+*])(\d+)",
            lambda match: match[2].join(sorted((match[1], match[3]))),
            super().twin(question),
        )
