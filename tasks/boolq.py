"""BoolQ (Clark et al. 2019, arXiv:1905.10044): yes/no questions asked of a search engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.task import (
    Example,
    MissingDataError,
    SavedRows,
    Source,
    Split,
    UsageError,
    did_you_mean,
)
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import after
from tasks.places import Place, Places, hub, letters_of, local

OPENING = "Please answer the following question with true or false, question: "
FORMAT = "?\n\nAnswer format: true/false"
SAME_OPENING = 60


class BoolQ(CommonsenseTask):
    """Is the answer yes? By default without the passage, as in the paper's data.

    Args:
        argument: ``with_passage`` prepends the passage to the question (``choice-text`` only).
    """

    name = "boolq"
    title = "BoolQ"
    grouped_by = "passage (question, if there is none)"
    places = Places(
        embedded=Place(SavedRows("boolq/none/validation")),
        hub=hub("google/boolq"),
        local=local("boolq"),
    )

    def __init__(self, argument: str | None = None) -> None:
        if argument not in (None, "with_passage"):
            raise UsageError(
                f"The task 'boolq' has no option {argument!r}. "
                f"{did_you_mean(str(argument), ['with_passage'])}"
            )
        super().__init__()
        self._with_passage = argument is not None
        if self._with_passage:
            self.protocols = ("choice-text",)

    @property
    def reference(self) -> str:
        """The task's name on the command line."""
        return "boolq:with_passage" if self._with_passage else "boolq"

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a row of ``google/boolq``."""
        fields = {
            "question": row["question"],
            "passage": row["passage"],
            "choices": ("no", "yes"),
        }
        return fields, int(row["answer"])

    def twin(self, fields: Fields) -> str:
        """The start of the passage; without a passage, the question.

        Many questions share a passage, and some passages are revisions of each other that agree
        only in their first words.
        """
        opening = letters_of(fields.get("passage", ""))[:SAME_OPENING]
        return opening or str(fields["question"])

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """Adds the question mark, which the rows lack."""
        context = f"Question: {fields['question']}?\nAnswer:"
        if self._with_passage:
            context = f"{fields['passage']}\n{context}"
        return context, (" no", " yes")

    @property
    def known_labels(self) -> tuple[str, ...]:
        """In the order of the choices, which differs from the order in the instruction."""
        return ("false", "true")

    def labels(self, fields: Fields) -> tuple[str, ...]:
        """The same for every item."""
        return self.known_labels

    def instruction(self, fields: Fields) -> str:
        """LLM-Adapters' instruction, which lists no choices."""
        return f"{OPENING}{fields['question']}{FORMAT}"

    def parse(self, instruction: str) -> Fields:
        """The fields of an instruction."""
        question = after(instruction, OPENING)
        if not question.endswith(FORMAT):
            raise ValueError(f"the instruction does not end in {FORMAT!r}")
        return {"question": question.removesuffix(FORMAT), "choices": ("no", "yes")}

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split; `with_passage` needs a source that has passages."""
        if self._with_passage and source.kind == "local":
            raise MissingDataError(
                "LLM-Adapters' rows of BoolQ have no passage; "
                "use the task 'boolq', or the source 'embedded' or 'hub'."
            )
        return super().examples(source, split)
