"""DROP (Dua et al. 2019, arXiv:1903.00161): questions that need reasoning over a passage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from quanta_bench.task import (
    Answer,
    BenchError,
    Example,
    HubRows,
    Prompt,
    RequestRows,
    Source,
    Split,
    Task,
    UsageError,
    did_you_mean,
)
from tasks.drop_metrics import drop_scores, token_scores
from tasks.places import CARVED, CUT, Place, read_split, twin_key

PUBLISHED = Place(
    HubRows("EleutherAI/drop", None, "train"),
    test=HubRows("EleutherAI/drop", None, "validation"),
    fractions=CARVED,
)


class Drop(Task):
    """Answer a question about a passage in a few words.

    Training and validation items come from the published training split, split by passage, and
    test items from the published validation split; the paper samples 2,000, 800 and 1,200 of them.
    The 1,000 embedded items are divided among all three splits, also by passage.

    Metrics: ``f1`` and ``exact`` accept every span of any annotator as an answer of its own, as the
    paper does; ``drop_f1`` and ``drop_em`` are DROP's own, which keep an annotator's spans together
    and treat the generated text as one span.

    The training target is the first span of the first annotator's answer, as in the paper's public
    code. A context that is too long loses the end of the passage, never the question.
    """

    name = "drop"
    title = "DROP"
    grouped_by = "passage"
    kind = "generate"
    metric = "f1"
    metrics = ("f1", "exact", "drop_f1", "drop_em")
    template_version = 2
    protocols = ("generate",)
    max_new_tokens = 50
    places: ClassVar[Mapping[str, Place]] = {
        "embedded": Place(RequestRows("drop/bpb_5shot"), fractions=CUT),
        "hub": PUBLISHED,
        "local": PUBLISHED,
    }

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        return read_split(self, self.places[source.kind], source, split, self.example)

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of an embedded or published row.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: the row is neither.
        """
        answers = tuple(dict.fromkeys(answers_of(row)))
        references = tuple(dict.fromkeys(span for answer in answers for span in answer))
        if not references or not all(answers):
            raise ValueError("the row has an empty answer")
        fields = {
            "passage": row["passage"],
            "question": row["question"].strip(),
            "answers": answers,
        }
        return Example(name, twin_key(row["passage"]), fields, references=references)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """Passage and question, formatted as in the paper (table H.8) and its public code."""
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.name!r} does not support the protocol {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        passage, question = example.fields["passage"], example.fields["question"]
        # Generation stops at the first line break, so the target must not contain one.
        target = " ".join(example.references[0].split())
        tail = f"\nQuestion: {question}\nAnswer:"
        return Prompt(f"Passage: {passage}{tail}", target=f" {target}", tail=tail)

    def judge_text(self, example: Example, text: str) -> Answer:
        """Score a generated text against every annotator's answer."""
        if not example.references:
            raise BenchError(f"Item {example.id} has no answer to compare with.")
        predicted = text.strip()
        exact, f1 = token_scores(predicted, example.references)
        drop_em, drop_f1 = drop_scores([predicted], example.fields["answers"])
        scores = {"f1": f1, "exact": exact, "drop_f1": drop_f1, "drop_em": drop_em}
        return Answer(predicted or None, example.references[0], scores)


def answers_of(row: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """Each annotator's answer, as one or more spans.

    Rows of ``ucinlp/drop`` hold the spans of all annotators in one flat list. Each span then counts
    as an answer of its own, and ``drop_f1`` and ``drop_em`` are upper bounds.
    """
    if "answers" in row:
        return [tuple(answer) for answer in row["answers"]]
    if "answers_spans" in row:
        return [(span,) for span in row["answers_spans"]["spans"]]
    others = row["validated_answers"]
    if isinstance(others, Mapping):
        # Older releases of datasets return a list of structs as a struct of lists.
        keys = ("number", "date", "spans")
        columns = zip(*(others[key] for key in keys), strict=True)
        others = [dict(zip(keys, values, strict=True)) for values in columns]
    return [spans for spans in map(_spans, (row["answer"], *others)) if spans]


def _spans(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The spans of an answer: a number, spans of text or a date."""
    if answer["number"]:
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = " ".join(part for key in ("day", "month", "year") if (part := answer["date"][key]))
    return (date,) if date else ()
