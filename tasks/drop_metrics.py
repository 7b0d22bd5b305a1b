"""Two metrics for DROP: the paper's, and DROP's own.

The paper scores the word overlap with the best reference, as SQuAD does. DROP's authors (Dua et al.
2019, section 5) compare sets of words, align the spans of an answer with those of a reference, and
require numbers to match. Neither handles number words: "three" is not "3".
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


# --- the paper's metric ------------------------------------------------------------------------


def token_scores(prediction: str, references: Sequence[str]) -> tuple[float, float]:
    """The paper's exact match and F1, each against the best reference.

    Case, ASCII punctuation, articles and whitespace are ignored, so "5.5" and "55" match. An answer
    or reference that is empty after normalisation scores 0.

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


# --- DROP's own metric ------------------------------------------------------------------------


def drop_scores(spans: Sequence[str], answers: Sequence[Sequence[str]]) -> tuple[float, float]:
    """DROP's exact match and F1, each against the best of several annotators' answers.

    Spans are split at spaces and hyphens. A piece that parses as a number is normalised to it
    ("1,000" and "1000.0" match, and so do "-5" and "5"); others lose case, ASCII punctuation and
    articles, and may parse as a number afterwards ("$5", "5%"). F1 is the mean over the longer list
    of spans under the best one-to-one alignment, rounded to 2 decimals as in DROP's evaluator. A
    pair scores 0 if the annotator's span has numbers and the other span has none of them.

    Args:
        spans: the prediction, as one or more spans.
        answers: each annotator's answer, as one or more spans. An answer whose first span is blank
            is skipped.

    Returns:
        Exact match and F1, in [0, 1].
    """
    predicted = [_normal(span) for span in spans]
    exact, f1 = 0.0, 0.0
    for answer in answers:
        if not answer[0].strip():
            continue
        gold = [_normal(span) for span in answer]
        same = set(predicted) == set(gold) and len(predicted) == len(gold)
        exact = max(exact, float(same))
        f1 = max(f1, _paired_f1(predicted, gold))
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


def _paired_f1(predicted: Sequence[str], gold: Sequence[str]) -> float:
    scores = np.array([[_set_f1(set(a.split()), set(b.split())) for b in predicted] for a in gold])
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    # Python rounds 0.175 down, because its float lies just below it.
    return float(np.round(best / max(scores.shape), 2))


def _set_f1(gold: set[str], predicted: set[str]) -> float:
    numbers = {word for word in gold if _is_number(word)}
    if numbers and not numbers & predicted:
        return 0.0
    if not gold or not predicted:
        # Two empty spans match; an empty span shares no word with any other.
        return float(gold == predicted)
    return 2 * len(gold & predicted) / (len(gold) + len(predicted))
