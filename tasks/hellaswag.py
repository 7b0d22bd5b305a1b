"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): how a described scene continues.

The scenes come from video captions (ActivityNet) and from WikiHow articles. The latter contain
markers, ``[header] .. [title] .. [step] .. [substeps]``, for the article's structure.
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
    """Remove WikiHow's markers from a text; a title within it becomes its own sentence."""
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
        """Fields and correct choice of a row of ``Rowan/hellaswag``."""
        fields = {
            "activity_label": row["activity_label"],
            "ctx_a": row["ctx_a"],
            "ctx_b": row["ctx_b"],
            "source_id": row["source_id"],
            "choices": tuple(row["endings"]),
        }
        return fields, int(row["label"])

    def statement(self, fields: Fields) -> str:
        """Label and scene, with markers and case unchanged; a few local rows have no label."""
        scene = f"{fields['ctx_a']} {fields['ctx_b']}" if fields["ctx_b"] else fields["ctx_a"]
        return f"{fields['activity_label']}: {scene}" if fields["activity_label"] else str(scene)

    def fields(self, statement: str) -> Fields:
        """Label, scene, and the unfinished sentence if the scene ends with one."""
        label, separator, scene = statement.partition(": ")
        if not separator or len(label) > LONGEST_LABEL or re.search(r"[.\[\]]", label):
            label, scene = "", statement
        ctx_a, separator, ctx_b = scene.rpartition(". ")
        # An unfinished sentence starts in lower case; WikiHow's scenes end complete.
        if separator and ctx_b and not ctx_b[0].isupper() and not re.search(r"\[|[.!?]$", scene):
            return {"activity_label": label, "ctx_a": f"{ctx_a}.", "ctx_b": ctx_b}
        return {"activity_label": label, "ctx_a": scene, "ctx_b": ""}

    def twin(self, fields: Fields) -> str:
        """WikiHow: the article's title. Otherwise the source, or the scene if there is no source.

        Some articles appear under two sources; each source has one title.
        """
        if title := re.match(r"\[header\](.+?)\[title\]", fields["ctx_a"]):
            return title[1]
        return str(fields.get("source_id") or self.statement(fields))

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the endings themselves; markers are removed throughout."""
        start = fields["ctx_b"]
        capital = {**fields, "ctx_b": start[:1].upper() + start[1:]}
        candidates = tuple(f" {clean(choice)}" for choice in fields["choices"])
        return clean(self.statement(capital)), candidates
