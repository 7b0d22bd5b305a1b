"""Social IQa (Sap et al. 2019, arXiv:1904.09728): why people act and how they feel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quanta_bench.task import SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, hub, local

# The question starts at the last capitalised question word, because some contexts end without a
# full stop; failing that, after the last full stop.
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
        # The main branch is a loading script; this branch is the hub's own Parquet conversion.
        hub=hub("allenai/social_i_qa", revision="refs/convert/parquet"),
        local=local("social_i_qa"),
    )

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a row with context, question, answerA to answerC, label."""
        choices = (row["answerA"], row["answerB"], row["answerC"])
        fields = {"context": row["context"], "question": row["question"], "choices": choices}
        # Labels are 1-based.
        return fields, int(row["label"]) - 1

    def statement(self, fields: Fields) -> str:
        """Situation and question joined."""
        return f"{fields['context']} {fields['question']}"

    def fields(self, statement: str) -> Fields:
        """Situation and question separated."""
        for boundary in BOUNDARIES:
            if match := boundary.fullmatch(statement):
                return {"context": match[1], "question": match[2]}
        raise ValueError(f"no question in {statement!r}")

    def twin(self, fields: Fields) -> str:
        """The situation; several rows may ask about the same situation."""
        return str(fields["context"])

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the answers themselves."""
        context = f"{fields['context']}\nQuestion: {fields['question']}\nAnswer:"
        return context, tuple(f" {choice}" for choice in fields["choices"])
