"""GLUE (Wang et al. 2018, arXiv:1804.07461): the five tasks of the QuanTA paper's Table F.7.

The labels of GLUE's test sets are not public, so its validation rows are the test split here, as
in papers that report on "the dev set", and validation rows are held out from its training rows by
group. Training rows whose group is also in the test split are dropped: GLUE's own splits overlap
(in the public files 31 of RTE's 2,490 training rows, 24 of MRPC's 3,668, 19 of CoLA's 8,551 and
174 of STS-B's 5,749).

``local:DIR`` is a folder of GLUE's own files: ``DIR/RTE/train.tsv``, ``DIR/RTE/dev.tsv``.

A causal model classifies by choosing among the verbalised labels. An encoder uses a head with one
output per class; for STS-B the head has a single output and regresses the score.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from quanta_bench.task import (
    Answer,
    BenchError,
    Example,
    HubRows,
    MissingDataError,
    Prompt,
    SavedRows,
    Source,
    Split,
    Task,
    TsvRows,
    UsageError,
    did_you_mean,
)
from tasks.places import CARVED, Place, read_split, twin_key


def glue_places(
    config: str, folder: str, *, embedded: bool = False, columns: tuple[str, ...] = ()
) -> Mapping[str, Place]:
    """Row locations of one GLUE data set, by kind of source.

    Args:
        config: its name on the hub.
        folder: its folder among GLUE's own files.
        embedded: whether the embedded data include its validation rows.
        columns: the columns of its files, if they have no header line.
    """
    name = "nyu-mll/glue"
    places = {
        "hub": Place(
            HubRows(name, config, "train"),
            test=HubRows(name, config, "validation"),
            fractions=CARVED,
            disjoint=True,
        ),
        "local": Place(
            TsvRows(f"{folder}/train.tsv", columns),
            test=TsvRows(f"{folder}/dev.tsv", columns),
            fractions=CARVED,
            disjoint=True,
        ),
    }
    if embedded:
        places["embedded"] = Place(SavedRows(f"glue/{config}/validation"))
    return places


class GlueTask(Task):
    """One or two sentences and a label.

    ``fields`` of its items hold the ``sentences``.
    """

    kind = "classify"
    protocols = ("choice-text", "head")
    outputs = 2
    places: ClassVar[Mapping[str, Place]]
    labels: ClassVar[tuple[str, ...]]
    """The verbalised labels, in the order of their indices."""
    symmetric: ClassVar[bool] = False
    """Whether the order of two sentences does not matter. Some pairs occur in both orders, so these
    are grouped by one of the two regardless of order; others by the first sentence."""

    @abstractmethod
    def question(self, sentences: Sequence[str]) -> str:
        """The context whose correct continuation is the label."""

    def sentences(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The texts of a row."""
        return (row["sentence1"], row["sentence2"])

    def label(self, row: Mapping[str, Any]) -> int:
        """The index of a row's label."""
        return int(row["label"])

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row from the hub or from GLUE's own files."""
        sentences = tuple(sentence.strip() for sentence in self.sentences(row))
        gold = self.label(row)
        # Hidden labels are published as -1, which is a valid index in Python.
        if not 0 <= gold < len(self.labels):
            raise ValueError(f"there is no label {gold}")
        keys = [twin_key(sentence) for sentence in sentences]
        group = min(keys) if self.symmetric else keys[0]
        return Example(name, group, {"sentences": sentences}, gold)

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        place = self.places.get(source.kind)
        if place is None:
            raise MissingDataError(
                f"The {source.kind} data have no rows of {self.title}, only of SST-2, MRPC and "
                f"RTE. Use --source hub, or --source local:DIR with GLUE's own files in DIR."
            )
        return read_split(self, place, source, split, self.example)

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The question, with the labels as candidates."""
        with_prompt = self.protocols[:1]
        if protocol not in with_prompt:
            raise UsageError(
                f"The task {self.name!r} has no prompt for the protocol {protocol!r}. "
                f"{did_you_mean(protocol, with_prompt)}"
            )
        if example.gold is None:
            raise BenchError(f"Item {example.id} of {self.name} has no label.")
        candidates = tuple(f" {label}" for label in self.labels)
        question = self.question(example.fields["sentences"])
        return Prompt(question, candidates, candidates[example.gold])

    def texts(self, example: Example) -> tuple[str, ...]:
        """The sentences, unchanged."""
        sentences: tuple[str, ...] = example.fields["sentences"]
        return sentences

    def judge_choice(self, example: Example, chosen: int) -> Answer:
        """Judge a single choice by accuracy; F1 and correlations are computed over all answers."""
        judged = super().judge_choice(example, chosen)
        return replace(judged, scores={"accuracy": judged.scores[self.metric]})


class SST2(GlueTask):
    """Is a phrase of a film review positive? (Socher et al. 2013.) Accuracy.

    Many training rows are phrases of a longer sentence. GLUE does not say which, so phrases of one
    sentence may end up in both training and validation.
    """

    name = "sst2"
    title = "SST-2"
    grouped_by = "sentence"
    places = glue_places("sst2", "SST-2", embedded=True)
    labels = ("negative", "positive")

    def sentences(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The phrase."""
        return (row["sentence"],)

    def question(self, sentences: Sequence[str]) -> str:
        """The phrase and a question about it."""
        return f"{sentences[0]}\nQuestion: Is this sentence positive or negative?\nAnswer:"


class RTE(GlueTask):
    """Does the first text entail the second sentence? (Dagan et al. 2006 and later.) Accuracy."""

    name = "rte"
    title = "RTE"
    grouped_by = "first text"
    places = glue_places("rte", "RTE", embedded=True)
    labels = ("True", "False")

    def label(self, row: Mapping[str, Any]) -> int:
        """0 for entailment; GLUE's own files spell the label out."""
        names = {"entailment": 0, "not_entailment": 1}
        return names[row["label"]] if isinstance(row["label"], str) else int(row["label"])

    def question(self, sentences: Sequence[str]) -> str:
        """The first text, and the question whether the second is true."""
        return f"{sentences[0]}\nQuestion: {sentences[1]} True or False?\nAnswer:"


class MRPC(GlueTask):
    """Are two news sentences paraphrases? (Dolan and Brockett 2005.) F1, with accuracy.

    Table F.7 does not say which of the two it reports. We read its 91.48 and 91.67 as F1: no number
    of correct answers out of 408 gives 91.48 %, and an F1 of 91.5 corresponds to an accuracy of
    about 88 %, typical of RoBERTa-base.
    """

    name = "mrpc"
    title = "MRPC"
    grouped_by = "one of the two sentences"
    metric = "f1"
    metrics = ("f1", "accuracy")
    places = glue_places("mrpc", "MRPC", embedded=True)
    labels = ("no", "yes")
    symmetric = True

    def sentences(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The two sentences; GLUE's own files call them strings."""
        return (row["#1 String"], row["#2 String"]) if "Quality" in row else super().sentences(row)

    def label(self, row: Mapping[str, Any]) -> int:
        """1 for paraphrases."""
        return int(row["Quality"] if "Quality" in row else row["label"])

    def question(self, sentences: Sequence[str]) -> str:
        """Both sentences and a question about them."""
        return f"{both(sentences)}\nQuestion: Do both sentences mean the same thing?\nAnswer:"

    def aggregate(self, answers: Sequence[Answer]) -> dict[str, float]:
        """F1 of the paraphrase class, and accuracy."""
        from sklearn.metrics import f1_score  # type: ignore[import-untyped]

        gold, predicted = gold_and_predicted(answers)
        score = float(f1_score(gold, predicted, zero_division=0.0))
        return {**super().aggregate(answers), self.metric: score}

    def chance(self, examples: Sequence[Example], choices: Sequence[int]) -> float | None:
        """F1 of the expected counts under random guessing."""
        positive = sum(example.gold == 1 for example in examples)
        # Half of the positives are predicted positive, and half of all items are.
        return positive / (positive + len(examples) / 2) if examples else None


class CoLA(GlueTask):
    """Is a sentence grammatical English? (Warstadt et al. 2019.) Matthews correlation."""

    name = "cola"
    title = "CoLA"
    grouped_by = "sentence"
    metric = "matthews"
    metrics = ("matthews", "accuracy")
    places = glue_places("cola", "CoLA", columns=("source", "label", "mark", "sentence"))
    labels = ("no", "yes")

    def sentences(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The sentence."""
        return (row["sentence"],)

    def question(self, sentences: Sequence[str]) -> str:
        """The sentence and a question about it."""
        return f"{sentences[0]}\nQuestion: Is this sentence grammatical?\nAnswer:"

    def aggregate(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Matthews correlation, 0 if all answers are the same, and accuracy."""
        from sklearn.metrics import matthews_corrcoef

        gold, predicted = gold_and_predicted(answers)
        defined = both_vary(gold, predicted)
        correlation = float(matthews_corrcoef(gold, predicted)) if defined else 0.0
        return {**super().aggregate(answers), self.metric: correlation}

    def chance(self, examples: Sequence[Example], choices: Sequence[int]) -> float | None:
        """Random guesses are uncorrelated with the labels."""
        return 0.0 if examples else None


class STSB(GlueTask):
    """How similar are two sentences, from 0 to 5? (Cer et al. 2017.) Pearson, with Spearman.

    A causal model chooses one of the six integer scores and is trained on the nearest one. Its
    choice is correlated with the published score, which has decimals; accuracy uses the nearest
    integer score. An encoder predicts the published score.
    """

    name = "stsb"
    title = "STS-B"
    grouped_by = "one of the two sentences"
    metric = "pearson"
    metrics = ("pearson", "spearman", "accuracy")
    places = glue_places("stsb", "STS-B")
    labels = ("0", "1", "2", "3", "4", "5")
    outputs = 1
    symmetric = True

    def label(self, row: Mapping[str, Any]) -> int:
        """The nearest integer score, halves rounded up."""
        return nearest(score_of(row))

    def example(self, row: Mapping[str, Any], name: str) -> Example:
        """The item of a row, including its ``score``."""
        item = super().example(row, name)
        return replace(item, fields={**item.fields, "score": score_of(row)})

    def question(self, sentences: Sequence[str]) -> str:
        """Both sentences and a question about them."""
        scale = "from 0 (nothing in common) to 5 (the same)"
        return f"{both(sentences)}\nQuestion: How similar is their meaning, {scale}?\nAnswer:"

    def target(self, example: Example) -> float:
        """The published score, from 0 to 5."""
        score: float = example.fields["score"]
        return score

    def judge_value(self, example: Example, value: float) -> Answer:
        """Keep the predicted score unchanged; accuracy clips it to the scale."""
        rounded = nearest(min(5.0, max(0.0, value)))
        return Answer(
            value, str(example.fields["score"]), {"accuracy": float(rounded == example.gold)}
        )

    def judge_choice(self, example: Example, chosen: int) -> Answer:
        """Judge a chosen score; the answer keeps the published one for the correlations."""
        return replace(super().judge_choice(example, chosen), gold=str(example.fields["score"]))

    def aggregate(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Pearson and Spearman correlation, 0 if all answers are the same, and accuracy."""
        from scipy import stats

        gold, predicted = gold_and_predicted(answers)
        correlations = {"pearson": 0.0, "spearman": 0.0}
        if both_vary(gold, predicted):
            correlations["pearson"] = float(stats.pearsonr(gold, predicted).statistic)
            correlations["spearman"] = float(stats.spearmanr(gold, predicted).statistic)
        return {**super().aggregate(answers), **correlations}

    def chance(self, examples: Sequence[Example], choices: Sequence[int]) -> float | None:
        """Random guesses are uncorrelated with the labels."""
        return 0.0 if examples else None


def score_of(row: Mapping[str, Any]) -> float:
    """The published score of a row, which the hub calls its label."""
    return float(row["score"] if "score" in row else row["label"])


def nearest(score: float) -> int:
    """The nearest integer score, halves rounded up."""
    return math.floor(score + 0.5)


def both(sentences: Sequence[str]) -> str:
    """Two sentences, numbered."""
    return f"Sentence 1: {sentences[0]}\nSentence 2: {sentences[1]}"


def gold_and_predicted(answers: Sequence[Answer]) -> tuple[list[float], list[float]]:
    """Gold labels and predictions, as numbers."""
    return (
        [float(answer.gold) for answer in answers],
        [float(answer.prediction) for answer in answers if answer.prediction is not None],
    )


def both_vary(gold: Sequence[float], predicted: Sequence[float]) -> bool:
    """Whether their correlation is defined; otherwise the libraries warn or return NaN."""
    return len(set(gold)) > 1 and len(set(predicted)) > 1
