"""Wikipedia's prose: a second text, unlike novels, that shows what a model keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quanta_bench.task import (
    Example,
    HubRows,
    Location,
    MissingDataError,
    Prompt,
    SavedRows,
    Source,
    Split,
    Task,
)
from tasks.places import read_rows, text_of, twin_key

OPENING = 60


class WikipediaText(Task):
    """The passages of BoolQ's validation set (Clark et al. 2019), scored by perplexity.

    Many questions share a passage, and some passages are revisions of each other that agree only in
    their first words; of these the first is kept.
    """

    name = "wikipedia_text"
    title = "Wikipedia"
    kind = "perplexity"
    metric = "perplexity"

    def examples(self, source: Source, split: Split) -> Sequence[Example]:
        """All distinct passages; the task has only a test split."""
        if split != "test":
            raise MissingDataError(f"{self.name} has no {split} split; it is only ever scored.")
        location: Location
        if source.kind == "embedded":
            location = SavedRows("boolq/none/validation")
        elif source.kind == "hub":
            location = HubRows("google/boolq", None, "validation")
        else:
            raise MissingDataError(
                "LLM-Adapters' rows of BoolQ have no passages; use the source 'embedded' or 'hub'."
            )
        passages = read_rows(self, location, source, split, _example)
        return list({passage.group: passage for passage in reversed(passages)}.values())[::-1]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The whole passage, with an empty context."""
        return Prompt("", target=example.fields["text"])


def _example(row: Mapping[str, Any], name: str) -> Example:
    text = text_of(row, "passage")
    return Example(name, twin_key(text[:OPENING]), {"text": text})
