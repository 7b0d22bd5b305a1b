"""ARC (Clark et al. 2018, arXiv:1803.05457): easy and hard science questions from school exams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quanta_bench.task import Fractions, HubRows, RequestRows, SavedRows
from tasks.commonsense import CommonsenseTask, Fields
from tasks.llm_adapters import Layout
from tasks.places import Place, Places, local

REQUEST = ("Question: ", "\nAnswer:")


def science_places(saved: str, requests: str, hub: tuple[str, str], folder: str) -> Places:
    """Row locations of a data set whose test labels are public.

    In the embedded data, the validation rows are split into training and validation; the test rows
    are the published ones: 2,376 (ARC-e), 1,172 (ARC-c), 500 (OBQA).
    """
    return Places(
        embedded=Place(
            SavedRows(saved),
            test=RequestRows(requests),
            fractions=Fractions(train=0.75, validation=0.25),
            disjoint=True,
        ),
        hub=Place(
            HubRows(*hub, "train"),
            validation=HubRows(*hub, "validation"),
            test=HubRows(*hub, "test"),
            fractions=Fractions(train=1, validation=0),
        ),
        local=local(folder),
    )


class ScienceQuestions(CommonsenseTask):
    """Choose the answer to a question with three to five choices."""

    grouped_by = "question"
    layout = Layout("Please choose the correct answer to the question: ", "answer", 5)

    def published(self, row: Mapping[str, Any]) -> tuple[Fields, int]:
        """Fields and correct choice of a published row, or of an embedded request's document."""
        if "query" in row:
            before, after = REQUEST
            question = row["query"].removeprefix(before).removesuffix(after)
            return {"question": question, "choices": tuple(row["choices"])}, row["gold"]
        question = row["question_stem"] if "question_stem" in row else row["question"]
        choices = row["choices"]
        # Keys are letters in most rows, numbers in some.
        gold = choices["label"].index(row["answerKey"])
        return {"question": question, "choices": tuple(choices["text"])}, gold

    def twin(self, fields: Fields) -> str:
        """The question."""
        return str(fields["question"])

    def text(self, fields: Fields) -> tuple[str, tuple[str, ...]]:
        """The candidates are the choices themselves."""
        candidates = tuple(f" {choice}" for choice in fields["choices"])
        return f"Question: {fields['question']}\nAnswer:", candidates


class ArcEasy(ScienceQuestions):
    """Questions that a retrieval or a word co-occurrence baseline answers correctly."""

    name = "arc_easy"
    title = "ARC-e"
    places = science_places(
        "ai2_arc/ARC-Easy/validation",
        "arc_easy/test_rc_5shot",
        ("allenai/ai2_arc", "ARC-Easy"),
        "ARC-Easy",
    )


class ArcChallenge(ScienceQuestions):
    """Questions that both baselines answer incorrectly."""

    name = "arc_challenge"
    title = "ARC-c"
    places = science_places(
        "ai2_arc/ARC-Challenge/validation",
        "arc_challenge/test_rc_5shot",
        ("allenai/ai2_arc", "ARC-Challenge"),
        "ARC-Challenge",
    )
