"""PIQA (Bisk et al. 2020, arXiv:1911.11641): which of two solutions achieves an everyday goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.task import SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, hub, local


class PIQA(CommonsenseTask):
    """Choose the solution that works."""

    name = "piqa"
    title = "PIQA"
    grouped_by = "goal"
    layout = Layout(
        "Please choose the correct solution to the question: ", "solution", 2, between="\n\n"
    )
    places = Places(
        embedded=Place(SavedRows("piqa/plain_text/validation")),
        # The authors' own "ybisk/piqa" is a loading script; this is a Parquet copy.
        hub=hub("baber/piqa"),
        local=local("piqa"),
    )

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a row with goal, sol1, sol2 and label."""
        choices = (row["sol1"], row["sol2"])
        return {"question": row["goal"], "choices": choices}, int(row["label"])

    def twin(self, fields: Fields) -> str:
        """The goal; several rows may offer different solutions to the same goal."""
        return str(fields["question"])

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the solutions themselves."""
        candidates = tuple(f" {choice}" for choice in fields["choices"])
        return f"Question: {fields['question']}\nAnswer:", candidates
