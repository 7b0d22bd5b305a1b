"""The metrics that a mapping can name. None is loaded as code from elsewhere.

Where the library ``evaluate`` has the same metric, the value is the same: it calls scikit-learn and
``rouge_score``, with which tests compare. Its own loader runs a script from the hub for every
metric, so none is taken from there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from quanta_bench.task import did_you_mean, same_text
from tasks.numbers import last_number, same_number

ELSEWHERE = {
    "exact_match": "accuracy",
    "rouge": "rouge_l",
    "rougeL": "rouge_l",
    "matthews_correlation": "matthews",
    "mcc": "matthews",
    "token_f1": "f1",
    "squad": "f1",
    "macro_f1": "f1_macro",
}
"""Names that other libraries have for metrics of this module."""


def no_metric(name: str, known: Iterable[str]) -> str:
    """What is said of a metric that is not known: the nearest names, and the way to others."""
    names = sorted(known)
    other = ELSEWHERE.get(name, "")
    near = f"Here it is called {other!r}." if other in names else did_you_mean(name, names)
    return (
        f"there is no metric {name!r}. {near} Metrics of the library evaluate are scripts that it "
        "downloads and runs, which is never done here; write another metric as a task in Python "
        "(quanta-bench new task NAME)"
    )


# --- of one generated answer and a reference, in [0, 1] -------------------------------------------


def _equal(answer: str, reference: str) -> float:
    return float(same_text(answer, reference))


def _contains(answer: str, reference: str) -> float:
    found = f" {' '.join(_words(answer))} "
    return float(f" {' '.join(_words(reference))} " in found)


def _number(answer: str, reference: str) -> float:
    """Whether the last number of both is the same."""
    one, other = last_number(answer), last_number(reference)
    return float(one is not None and other is not None and same_number(one, other))


def _f1(answer: str, reference: str) -> float:
    """The harmonic mean of precision and recall of words, each counted as often as it stands."""
    ours, theirs = _words(answer), _words(reference)
    return _harmonic((Counter(ours) & Counter(theirs)).total(), ours, theirs)


def _rouge_l(answer: str, reference: str) -> float:
    """The same of the longest common subsequence of words (Lin 2004), without stemming."""
    ours, theirs = _words(answer), _words(reference)
    # lengths[n]: of the longest subsequence common to the words so far and theirs[:n].
    lengths = [0] * (len(theirs) + 1)
    for word in ours:
        before = 0
        for n, other in enumerate(theirs, 1):
            longest = before + 1 if word == other else max(lengths[n], lengths[n - 1])
            before, lengths[n] = lengths[n], longest
    return _harmonic(lengths[-1], ours, theirs)


def _harmonic(common: int, ours: Sequence[str], theirs: Sequence[str]) -> float:
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


TEXT_METRICS: Mapping[str, Callable[[str, str], float]] = {
    "accuracy": _equal,
    "contains": _contains,
    "number": _number,
    "f1": _f1,
    "rouge_l": _rouge_l,
}


# --- of all choices of a split --------------------------------------------------------------------


def _f1_macro(gold: Sequence[int], chosen: Sequence[int]) -> float:
    """The mean over choices of each one's F1, rare ones counting as much as others."""
    from sklearn.metrics import f1_score  # type: ignore[import-untyped]

    return float(f1_score(gold, chosen, average="macro", zero_division=0.0))


def _matthews(gold: Sequence[int], chosen: Sequence[int]) -> float:
    """Matthews correlation, from -1 to 1; 0 if all answers are the same."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(gold, chosen))


CHOICE_METRICS: Mapping[str, Callable[[Sequence[int], Sequence[int]], float] | None] = {
    "accuracy": None,  # a mean over items, as every task has it
    "f1_macro": _f1_macro,
    "matthews": _matthews,
}
