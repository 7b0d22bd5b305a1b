"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): how a described scene goes on.

The scenes come from video captions (ActivityNet) and from WikiHow articles. The latter carry
marks, ``[header] .. [title] .. [step] .. [substeps]``, that stand for the article's structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quanta_bench.task import SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, hub, local

LONGEST_LABEL = 40


def clean(text: str) -> str:
    """A text without WikiHow's marks; a title within it becomes a sentence of its own."""
    text = text.replace(" [title]", ". ")
    text = re.sub(r"\[[^\]]*\]", "", text)
    return re.sub(" {2,}", " ", text).strip()


class HellaSwag(CommonsenseTask):
    """Choose the ending."""

    name = "hellaswag"
    title = "HellaS."
    grouped_by = "article or video"
    layout = Layout(
        "Please choose the correct ending to complete the given sentence: ", "ending", 4
    )
    places = Places(
        embedded=Place(SavedRows("hellaswag/none/validation")),
        hub=hub("Rowan/hellaswag"),
        local=local("hellaswag"),
    )

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and right choice of a row of ``Rowan/hellaswag``."""
        fields = {
            "activity_label": row["activity_label"],
            "ctx_a": row["ctx_a"],
            "ctx_b": row["ctx_b"],
            "source_id": row["source_id"],
            "choices": tuple(row["endings"]),
        }
        return fields, int(row["label"])

    def statement(self, fields: Fields) -> str:
        """Label and scene, with marks and case untouched; a few local rows have no label."""
        scene = f"{fields['ctx_a']} {fields['ctx_b']}" if fields["ctx_b"] else fields["ctx_a"]
        return f"{fields['activity_label']}: {scene}" if fields["activity_label"] else str(scene)

    def fields(self, statement: str) -> Fields:
        """Label, scene, and the started sentence if the scene ends in one."""
        label, found, scene = statement.partition(": ")
        if not found or len(label) > LONGEST_LABEL or re.search(r"[.\[\]]", label):
            label, scene = "", statement
        ctx_a, found, ctx_b = scene.rpartition(". ")
        # A started sentence is in lower case and open; WikiHow's scenes end with a full one.
        if found and ctx_b and not ctx_b[0].isupper() and not re.search(r"\[|[.!?]$", scene):
            return {"activity_label": label, "ctx_a": f"{ctx_a}.", "ctx_b": ctx_b}
        return {"activity_label": label, "ctx_a": scene, "ctx_b": ""}

    def twin(self, fields: Fields) -> str:
        """WikiHow: the article's title. Otherwise the source, or the scene where none is named.

        Some articles stand in the data under two sources; each source has one title.
        """
        if title := re.match(r"\[header\](.+?)\[title\]", fields["ctx_a"]):
            return title[1]
        return str(fields.get("source_id") or self.statement(fields))

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the endings themselves; marks are removed throughout."""
        start = fields["ctx_b"]
        capital = {**fields, "ctx_b": start[:1].upper() + start[1:]}
        candidates = tuple(f" {clean(choice)}" for choice in fields["choices"])
        return clean(self.statement(capital)), candidates
