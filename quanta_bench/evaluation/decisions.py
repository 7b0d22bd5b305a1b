"""Which candidate wins, and how ties count: one rule for validation, selection and scoring.

A score that is NaN or infinite decides nothing and is an error. Candidates with equal best scores
share the item: each counts as the answer with weight 1/k, the expected result of drawing one of
the k at random. Taking the first of them instead, as ``argmax`` does, would turn the order in which
a data set lists its choices into accuracy: a collapsed model scores 100 % where the right choice
stands first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from quanta_bench.errors import BenchError
from quanta_bench.task import Answer, Example, Task

MAX_COPIES = 840
"""Bound on an item's copies in :func:`aggregate`; 840 is divisible by every number up to 8."""


class NonFiniteError(BenchError):
    """A model's output, or a number computed from its outputs, is NaN or infinite."""


def check_finite(values: Sequence[float], what: str, example: Example, task: str) -> None:
    """Refuse outputs that are NaN or infinite.

    Args:
        values: a model's outputs for an item, one per candidate or head output.
        what: the name of such an output in the message.
        example: the item.
        task: the task as the command line names it.

    Raises:
        NonFiniteError: names the task, the item and the first value that is NaN or infinite in
            float32.
    """
    for number, value in enumerate(_float32(values).tolist()):
        if not math.isfinite(value):
            raise NonFiniteError(f"{task}, item {example.id}: {what} {number} is {value}")


def winners(scores: Sequence[float]) -> tuple[int, ...]:
    """The indices of the best scores, in order: one, or several that are tied.

    Args:
        scores: one finite score per candidate; higher is better. They are compared in float32.

    Scores tie only if they are equal as float32 numbers, the precision in which token
    likelihoods are computed. A wider tolerance would have to depend on the precision of the forward
    pass, would not be transitive (a and b tie, b and c tie, a and c do not), and would discard
    differences that are real. It would gain nothing: where rounding decides between near-equal
    scores, it favours no position, whereas exact ties broken by index always favour the first. The
    sums of token likelihoods are taken in float64, so that means over different numbers of equal
    terms are exactly equal (:func:`quanta_bench.evaluation.likelihood.log_likelihoods`).
    """
    rounded = _float32(scores)
    return tuple(np.flatnonzero(rounded == rounded.max()).tolist())


def credit(scores: Sequence[float], gold: int) -> float:
    """The accuracy of one item: 1 if the right candidate wins, 1/k if it is one of k tied."""
    best = winners(scores)
    return 1 / len(best) if gold in best else 0.0


def judge(task: Task, example: Example, scores: Sequence[float]) -> tuple[Answer, ...]:
    """The judged answer of the winning candidate; several, equally likely, where these tie."""
    return tuple(task.judge_choice(example, index) for index in winners(scores))


def expected(answers: Sequence[Answer]) -> Answer:
    """Equally likely answers as one: the mean of their scores; no prediction unless they agree."""
    first, *others = answers
    if not others:
        return first
    names = {name for answer in answers for name in answer.scores}
    scores = {
        name: math.fsum(answer.scores.get(name, 0.0) for answer in answers) / len(answers)
        for name in sorted(names)
    }
    agreed = all(answer.prediction == first.prediction for answer in others)
    return Answer(first.prediction if agreed else None, first.gold, scores)


def aggregate(task: Task, items: Sequence[Sequence[Answer]]) -> dict[str, float]:
    """A task's metrics over items, each given by its equally likely answers.

    A mean over items is taken of the expected scores. Any other metric (F1, a correlation) is that
    of the distribution in which each of an item's k answers has the weight 1/k, realised by
    repeating answers: F1 becomes that of the expected confusion matrix. Beyond `MAX_COPIES` copies
    of an item, the weights are rounded to that many parts.
    """
    if type(task).aggregate is Task.aggregate or all(len(answers) == 1 for answers in items):
        return task.aggregate([expected(answers) for answers in items])
    copies = min(MAX_COPIES, math.lcm(*{len(answers) for answers in items}))
    repeated = []
    for answers in items:
        share, rest = divmod(copies, len(answers))
        for number, answer in enumerate(answers):
            repeated += [answer] * (share + (number < rest))
    return task.aggregate(repeated)


def _float32(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float64).astype(np.float32)
