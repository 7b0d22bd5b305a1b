"""DROP (Dua et al. 2019, arXiv:1903.00161): questions that reckon with what a passage says."""

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

    Training and validation items come from the published training split, cut by passage, and test
    items from the published validation split; the paper draws 2,000, 800 and 1,200 of them. The
    embedded 1,000 items are cut into all three splits, by passage too.

    Metrics: ``f1`` and ``exact`` take each span that any annotator named for a right answer of its
    own, as the paper does; ``drop_f1`` and ``drop_em`` are DROP's own, for which an annotator's
    spans belong together and the generated text is one span.

    Training learns the first span of the first annotator's answer, as the paper's public code does.
    A context that is too long loses the end of the passage and nothing of the question.
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
        """All items of a split, in the order of their rows."""
        return read_split(self, self.places[source.kind], source, split, self.example)

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row, embedded or as published.

        Raises:
            KeyError, ValueError, TypeError, AttributeError: the row is neither.
        """
        answers = tuple(dict.fromkeys(answers_of(row)))
        references = tuple(dict.fromkeys(span for answer in answers for span in answer))
        if not references or not all(answers):
            raise ValueError("it has an empty answer")
        fields = {
            "passage": row["passage"],
            "question": row["question"].strip(),
            "answers": answers,
        }
        return Example(name, twin_key(row["passage"]), fields, references=references)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """Passage and question, as the paper (table H.8) and its public code put them."""
        if protocol not in self.protocols:
            raise UsageError(
                f"The task {self.name!r} cannot be put as {protocol!r}. "
                f"{did_you_mean(protocol, self.protocols)}"
            )
        passage, question = example.fields["passage"], example.fields["question"]
        # An answer ends at the first line break, so none may stand inside it.
        target = " ".join(example.references[0].split())
        tail = f"\nQuestion: {question}\nAnswer:"
        return Prompt(f"Passage: {passage}{tail}", target=f" {target}", tail=tail)

    def judge_text(self, example: Example, text: str) -> Answer:
        """Compare a generated text with every annotator's answer."""
        if not example.references:
            raise BenchError(f"Item {example.id} has no answer to compare with.")
        said = text.strip()
        exact, f1 = token_scores(said, example.references)
        drop_em, drop_f1 = drop_scores([said], example.fields["answers"])
        scores = {"f1": f1, "exact": exact, "drop_f1": drop_f1, "drop_em": drop_em}
        return Answer(said or None, example.references[0], scores)


def answers_of(row: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """Each annotator's answer, as one or more spans.

    Rows of ``ucinlp/drop`` hold the spans of all annotators in one list, which does not tell what
    belongs together: each span is taken for an answer of its own, and ``drop_f1`` and ``drop_em``
    are upper bounds.
    """
    if "answers" in row:
        return [tuple(answer) for answer in row["answers"]]
    if "answers_spans" in row:
        return [(span,) for span in row["answers_spans"]["spans"]]
    others = row["validated_answers"]
    if isinstance(others, Mapping):
        # Older releases of datasets give a list of structures as a structure of lists.
        keys = ("number", "date", "spans")
        columns = zip(*(others[key] for key in keys), strict=True)
        others = [dict(zip(keys, values, strict=True)) for values in columns]
    return [spans for spans in map(_spans, (row["answer"], *others)) if spans]


def _spans(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """The spans of an answer, which is a number, spans of text or a date."""
    if answer["number"]:
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = " ".join(part for key in ("day", "month", "year") if (part := answer["date"][key]))
    return (date,) if date else ()
