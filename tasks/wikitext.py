"""WikiText-2 (Merity et al. 2017, arXiv:1609.07843): Wikipedia articles, predicted token by token.

The hub's files hold the raw text, ``local:DIR`` the word-level text (``DIR/wikitext-2/train.txt``,
``valid.txt``, ``test.txt``), in which rare words are ``<unk>``; their perplexities are not
comparable. Both are scored unchanged, including markers such as ``@-@``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from quanta_bench.task import (
    Example,
    HubRows,
    LineRows,
    Location,
    MissingDataError,
    Prompt,
    Source,
    SourceError,
    Split,
    Task,
)
from tasks.places import text_of

HEADING = re.compile(r" ?= [^=].* = ?")
"""An article's title; section titles have more equals signs."""


class WikiText2(Task):
    """Whole articles, each from a start token, every token scored once.

    Perplexity per token depends on the tokenizer. Perplexity per word does not: it divides the same
    total by the file's number of whitespace-separated words, not counting line ends.
    """

    name = "wikitext2"
    title = "WikiText-2"
    kind = "perplexity"
    metric = "perplexity"
    files: ClassVar[Mapping[Split, str]] = {
        "train": "train.txt",
        "validation": "valid.txt",
        "test": "test.txt",
    }

    def examples(self, source: Source, split: Split) -> list[Example]:
        """The articles of a published split, in order."""
        location: Location
        if source.kind == "embedded":
            raise MissingDataError(
                "WikiText-2 is not in the embedded data. Use --source hub, or --source local:DIR "
                f"with wikitext-2/{self.files[split]} in DIR; the task 'running_text' works "
                "offline."
            )
        if source.kind == "hub":
            location = HubRows("Salesforce/wikitext", "wikitext-2-raw-v1", split)
        else:
            location = LineRows(f"wikitext-2/{self.files[split]}")
        try:
            lines = [text_of(row, "text").rstrip("\n") for row in source.rows(location)]
        except (KeyError, TypeError) as error:
            raise SourceError(f"A row of {location} is no line of text: {error}.") from error
        return [
            Example(f"{self.name}/{split}/{number}", f"{split}/{number}", {"text": text})
            for number, text in enumerate(articles(lines))
        ]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The whole article, with an empty context."""
        return Prompt("", target=example.fields["text"])

    def words(self, example: Example) -> int:
        """Number of whitespace-separated words, numbers and markers."""
        return len(example.fields["text"].split())


def articles(lines: Sequence[str]) -> Iterator[str]:
    """Split lines into articles, each with its title and without leading or trailing blank lines.

    A title has blank lines around it; a similar line elsewhere is a formula or a table row.
    """
    blank = [not line.strip() for line in (*lines, "")]
    starts = [
        number
        for number, line in enumerate(lines)
        if HEADING.fullmatch(line) and blank[number - 1] and blank[number + 1]
    ]
    # The first slice is any text before the first title, if the file is an excerpt.
    for start, end in zip([0, *starts], [*starts, len(lines)], strict=True):
        text = "\n".join(
            "" if blank[number] else lines[number] for number in range(start, end)
        ).strip("\n")
        if text:
            yield text
