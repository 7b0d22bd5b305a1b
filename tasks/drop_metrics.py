"""Two ways to compare an answer with DROP's references: the paper's, and DROP's own.

The paper counts the words that an answer shares with a reference, as SQuAD does, and takes the best
reference. DROP's authors (Dua et al. 2019, section 5) compare sets of words, pair the spans of an
answer with those of a reference, and demand that numbers agree. Neither knows number words: "three"
is not "3".
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

ARTICLES = re.compile(r"\b(?:a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


# --- the paper's ------------------------------------------------------------------------------


def token_scores(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """The paper's F1, and whether all words are the same, each with the best reference.

    Case, ASCII punctuation, articles and spaces are ignored, so "5.5" and "55" are the same. An
    answer or reference of which nothing is left scores 0.

    Returns:
        Exact match and F1, in [0, 1].
    """
    words = _plain_words(prediction)
    accepted = [_plain_words(reference) for reference in references]
    return float(bool(words) and words in accepted), max(
        (_overlap(words, reference) for reference in accepted), default=0.0
    )


def _plain_words(text: str) -> list[str]:
    return ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split()


def _overlap(words: list[str], reference: list[str]) -> float:
    shared = (Counter(words) & Counter(reference)).total()
    return 2 * shared / (len(words) + len(reference)) if shared else 0.0


# --- DROP's own -------------------------------------------------------------------------------


def drop_scores(spans: Sequence[str], answers: Sequence[Sequence[str]]) -> tuple[float, float]:
    """DROP's exact match and F1, each with the best of several annotators' answers.

    A span is cut at spaces and hyphens. A piece that reads as a number becomes one ("1,000" and
    "1000.0" are the same, "-5" and "5" too); others lose case, ASCII punctuation and articles, and
    may read as a number afterwards ("$5", "5%"). F1 is the mean over the longer list of spans,
    paired one to one so that it is largest, rounded to 2 decimals as DROP's evaluator does. A pair
    scores 0 if the annotator's span holds numbers and the other none of them.

    Args:
        spans: the answer, as one or more spans.
        answers: each annotator's answer, as one or more spans. One whose first span is blank does
            not count.

    Returns:
        Exact match and F1, in [0, 1].
    """
    said = [_normal(span) for span in spans]
    exact, f1 = 0.0, 0.0
    for answer in answers:
        if not answer[0].strip():
            continue
        gold = [_normal(span) for span in answer]
        same = set(said) == set(gold) and len(said) == len(gold)
        exact = max(exact, float(same))
        f1 = max(f1, _paired_f1(said, gold))
    return exact, f1


def _normal(span: str) -> str:
    return " ".join(" ".join(map(_piece, re.split("[ -]", span.lower()))).split())


def _piece(piece: str) -> str:
    if not _is_number(piece):
        piece = piece.translate(NO_PUNCTUATION)
    return str(float(piece)) if _is_number(piece) else ARTICLES.sub(" ", piece)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _paired_f1(said: Sequence[str], gold: Sequence[str]) -> float:
    scores = np.array([[_set_f1(set(a.split()), set(b.split())) for b in said] for a in gold])
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    # Python would round 0.175 down, for it lies below the decimal number.
    return float(np.round(best / max(scores.shape), 2))


def _set_f1(gold: set[str], said: set[str]) -> float:
    numbers = {word for word in gold if _is_number(word)}
    if numbers and not numbers & said:
        return 0.0
    if not gold or not said:
        # Nothing is the same as nothing, and shares no word with anything else.
        return float(gold == said)
    return 2 * len(gold & said) / (len(gold) + len(said))
