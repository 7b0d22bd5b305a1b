"""Social IQa (Sap et al. 2019, arXiv:1904.09728): why people act as they do, and how they feel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quanta_bench.task import SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, hub, local

# Where the context ends and the question starts: at the last question word that opens a sentence,
# for some contexts end without a full stop; failing that, at the last full stop.
BOUNDARIES = (
    re.compile(r"(.*\S) ((?:What|How|Why|Where|Who|When|Which)\b.*)", re.DOTALL),
    re.compile(r"(.*[.!?]) (.+)", re.DOTALL),
)


class SIQA(CommonsenseTask):
    """Choose the answer to a question about a situation."""

    name = "siqa"
    title = "SIQA"
    grouped_by = "situation"
    layout = Layout("Please choose the correct answer to the question: ", "answer", 5)
    places = Places(
        embedded=Place(SavedRows("social_i_qa/none/validation")),
        # The repository is a loading script; this branch is the hub's own conversion to parquet.
        hub=hub("allenai/social_i_qa", revision="refs/convert/parquet"),
        local=local("social_i_qa"),
    )

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and right choice of a row with context, question, answerA to answerC, label."""
        choices = (row["answerA"], row["answerB"], row["answerC"])
        fields = {"context": row["context"], "question": row["question"], "choices": choices}
        # Labels count from 1.
        return fields, int(row["label"]) - 1

    def statement(self, fields: Fields) -> str:
        """Situation and question in one."""
        return f"{fields['context']} {fields['question']}"

    def fields(self, statement: str) -> Fields:
        """Situation and question apart."""
        for boundary in BOUNDARIES:
            if found := boundary.fullmatch(statement):
                return {"context": found[1], "question": found[2]}
        raise ValueError(f"no question in {statement!r}")

    def twin(self, fields: Fields) -> str:
        """The situation; several rows may ask about the same one."""
        return str(fields["context"])

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the answers themselves."""
        context = f"{fields['context']}\nQuestion: {fields['question']}\nAnswer:"
        return context, tuple(f" {choice}" for choice in fields["choices"])
