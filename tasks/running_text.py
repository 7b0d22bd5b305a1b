"""Running text: how much general language-modelling ability a model keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quanta_bench.task import (
    Example,
    HubRows,
    JsonRows,
    Location,
    MissingDataError,
    Prompt,
    RequestRows,
    Source,
    Split,
    Task,
)
from tasks.places import read_rows, text_of


class RunningText(Task):
    """Passages of novels from LAMBADA (Paperno et al., 2016), scored by perplexity."""

    name = "running_text"
    title = "Text"
    kind = "perplexity"
    metric = "perplexity"
    locations: ClassVar[Mapping[str, Location]] = {
        "embedded": RequestRows("lambada/bpb_0shot"),
        "hub": HubRows("EleutherAI/lambada_openai", "default", "test"),
        "local": JsonRows("lambada/test.jsonl"),
    }

    def examples(self, source: Source, split: Split) -> Sequence[Example]:
        """All passages; the task has only a test split."""
        if split != "test":
            raise MissingDataError(f"running_text has no {split} split; it is only ever scored.")
        return read_rows(self, self.locations[source.kind], source, split, _example)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The whole passage, with an empty context."""
        return Prompt("", target=example.fields["text"])


def _example(row: Mapping[str, Any], name: str) -> Example:
    number = name.rpartition("/")[2]
    return Example(f"running_text-{number}", number, {"text": _text(row)})


def _text(row: Mapping[str, Any]) -> str:
    # Embedded rows store LAMBADA's target, the last word, separately from the passage.
    return (
        text_of(row, "text")
        if "text" in row
        else f"{text_of(row, 'query')} {text_of(row['answers_text'], 0)}"
    )
