"""Running text, to see how much of its general language ability a model keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quanta_bench.task import (
    Example,
    HubRows,
    JsonRows,
    Location,
    Prompt,
    RequestRows,
    Source,
    SourceError,
    Split,
    Task,
)


class RunningText(Task):
    """Passages of novels from LAMBADA (Paperno et al., 2016), predicted word by word."""

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
        """All passages; there is only a test split."""
        if split != "test":
            raise SourceError(f"running_text has no {split} split; it is only ever scored.")
        return [
            Example(f"running_text-{number}", str(number), {"text": _text(row)})
            for number, row in enumerate(source.rows(self.locations[source.kind]))
        ]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The whole passage, from nothing."""
        return Prompt("", target=example.fields["text"])


def _text(row: dict[str, Any]) -> str:
    # The embedded rows hold the last word, which LAMBADA asks for, apart from its passage.
    return str(row["text"]) if "text" in row else f"{row['query']} {row['answers_text'][0]}"
