"""DROP's two metrics: cases worked by hand, and the metrics of two public libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.drop_metrics import drop_scores, token_scores

# What is said, each annotator's answer, and DROP's exact match and F1, worked out on paper.
OFFICIAL = [
    # The same words, whatever case, articles and punctuation.
    ("Tony Romo", [["Tony Romo"]], 1, 1),
    ("tony romo", [["Tony Romo"]], 1, 1),
    ("the Texans", [["Texans"]], 1, 1),
    ("A Texan", [["an Texan"]], 1, 1),
    ("Texans.", [["Texans"]], 1, 1),
    ('"Texans"', [["Texans"]], 1, 1),
    ("  Texans  ", [["Texans"]], 1, 1),
    ("U.S.A.", [["USA"]], 1, 1),
    ("Theodore", [["odore"]], 0, 0),
    ("Romo Tony", [["Tony Romo"]], 0, 1),
    ("a.m.", [["am"]], 1, 1),
    # Words in common: 2 * shared / (said + reference).
    ("Romo", [["Tony Romo"]], 0, 0.67),
    ("Tony Romo threw it", [["Tony Romo"]], 0, 0.67),
    ("quarterback Tony", [["Tony Romo"]], 0, 0.5),
    ("Eli Manning", [["Tony Romo"]], 0, 0),
    ("one one two", [["one two two"]], 0, 1),
    ("red green blue", [["red green"]], 0, 0.8),
    # Hyphens part words.
    ("30-yard", [["30 yard"]], 1, 1),
    ("African-American", [["African American"]], 1, 1),
    ("30-yard field goal", [["30-yard"]], 0, 0.67),
    # Numbers.
    ("1507", [["1507"]], 1, 1),
    ("1,507", [["1507"]], 1, 1),
    ("1507.0", [["1507"]], 1, 1),
    ("54.60", [["54.6"]], 1, 1),
    ("$5", [["5"]], 1, 1),
    ("5%", [["5"]], 1, 1),
    ("-5", [["5"]], 1, 1),
    ("5 yards", [["5"]], 0, 0.67),
    ("5 yards", [["5 yards"]], 1, 1),
    ("6 yards", [["5 yards"]], 0, 0),
    ("5 feet", [["5 yards"]], 0, 0.5),
    ("yards", [["5 yards"]], 0, 0),
    ("5 yards", [["yards"]], 0, 0.67),
    ("three", [["3"]], 0, 0),
    ("3", [["three"]], 0, 0),
    ("1e3", [["1000"]], 1, 1),
    ("3.5.", [["35"]], 1, 1),  # the full stop makes it a word, which loses its punctuation
    ("3.5", [["35"]], 0, 0),
    # Dates.
    ("5 May 1945", [["5 May 1945"]], 1, 1),
    ("May 5, 1945", [["5 May 1945"]], 0, 1),
    ("1945", [["5 May 1945"]], 0, 0.5),
    ("5 June 1945", [["5 May 1945"]], 0, 0.67),
    # Nothing said, or nothing left.
    ("", [["Texans"]], 0, 0),
    ("", [["the"]], 1, 1),
    ("the", [["Texans"]], 0, 0),
    ("Texans", [["the"]], 0, 0),
    ("Texans", [[" "]], 0, 0),
    # Several annotators: the best of them.
    ("14", [["13"], ["14"]], 1, 1),
    ("Romo", [["Tony Romo"], ["Romo"]], 1, 1),
    ("Tony", [["Tony Romo"], ["Antonio Ramiro Romo"]], 0, 0.67),
    ("Texans", [[""], ["Colts"]], 0, 0),
    # Several spans: the text is one span, paired with one of them.
    ("Spain", [["Spain", "Italy"]], 0, 0.5),
    ("Spain Italy", [["Spain", "Italy"]], 0, 0.33),
    ("Spain, Italy and Malta", [["Spain", "Italy", "Malta"]], 0, 0.13),
    ("Spain", [["Spain", "Italy"], ["Spain"]], 1, 1),
]
SEVERAL = [
    (["Spain", "Italy"], [["Italy", "Spain"]], 1, 1),
    (["Spain"], [["Italy", "Spain", "Malta"]], 0, 0.33),
    (["Spain", "Italy", "Malta"], [["Italy"]], 0, 0.33),
    (["Spain", "Spain"], [["Spain"]], 0, 0.5),
    (["Spain", "Spain", "Italy"], [["Spain", "Italy", "Italy"]], 1, 0.67),
    # Greedy pairing would give "a b" to "b" and leave 0 for the other.
    (["x y", "y"], [["y", "y z"]], 0, 0.75),
    (["5 yards", "6 yards"], [["6 yards", "5 yards"]], 1, 1),
]


@pytest.mark.parametrize(("said", "answers", "exact", "f1"), OFFICIAL)
def test_drops_own_metric_by_hand(
    said: str, answers: list[list[str]], exact: int, f1: float
) -> None:
    assert drop_scores([said], answers) == (exact, f1)


@pytest.mark.parametrize(("said", "answers", "exact", "f1"), SEVERAL)
def test_spans_are_paired_one_to_one(
    said: list[str], answers: list[list[str]], exact: int, f1: float
) -> None:
    assert drop_scores(said, answers) == (exact, f1)


PAPER = [
    ("Tony Romo", ["tony romo!"], 1, 1),
    ("The Texans", ["Texans"], 1, 1),
    ("Romo", ["Tony Romo"], 0, 2 / 3),
    ("Romo Tony", ["Tony Romo"], 0, 1),
    ("one one two", ["one two two"], 0, 2 / 3),
    ("Spain", ["Spain", "Italy"], 1, 1),
    ("30-yard", ["30 yard"], 0, 0),
    ("30-yard", ["30yard"], 1, 1),
    ("5 feet", ["6 feet"], 0, 0.5),
    ("5.5", ["55"], 1, 1),
    ("1,507", ["1507"], 1, 1),
    ("1507.0", ["1507"], 0, 0),
    ("three", ["3"], 0, 0),
    ("", ["Texans"], 0, 0),
    ("", ["the"], 0, 0),
    ("a", ["the"], 0, 0),
    ("Texans", [], 0, 0),
]


@pytest.mark.parametrize(("said", "references", "exact", "f1"), PAPER)
def test_the_papers_metric_by_hand(said: str, references: list[str], exact: int, f1: float) -> None:
    assert token_scores(said, references) == pytest.approx((exact, f1))


PIECES = """
the a an The Texans romo Romo. 5 5.0 5% $5 -5 1,507 1507 30-yard yard yards 3.5. .5 1e3 inf nan
infinity U.S. o'clock a.m. x-the-y -- _ 1_000 ٣ ½ é É ß
"""
WORDS = st.sampled_from(PIECES.split())
JOINS = st.sampled_from([" ", " ", "  ", "-", ", ", "\t", "\n", "\xa0", ""])
SPAN = st.one_of(
    st.text(max_size=20),
    st.lists(st.tuples(WORDS, JOINS), max_size=6).map(
        lambda parts: "".join(word + join for word, join in parts)
    ),
)
SPANS = st.lists(SPAN, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def lm_eval_drop() -> Any:
    return pytest.importorskip("lm_eval.tasks.drop.utils")


@pytest.fixture(scope="module")
def lm_eval_squad() -> Any:
    return pytest.importorskip("lm_eval.tasks.qasper.metrics")


@given(SPANS, st.lists(SPANS, min_size=1, max_size=3))
def test_drops_own_metric_is_that_of_lm_eval(
    lm_eval_drop: Any, said: list[str], answers: list[list[str]]
) -> None:
    # Adapted there from the evaluator of DROP's authors; nothing differs on purpose.
    theirs = lm_eval_drop.process_results({"answers": answers}, said)
    assert drop_scores(said, answers) == (theirs["em"], theirs["f1"])


@given(SPAN, st.lists(SPAN, min_size=1, max_size=3))
def test_the_papers_metric_is_that_of_squad(
    lm_eval_squad: Any, said: str, references: list[str]
) -> None:
    words, *accepted = map(lm_eval_squad.normalize_answer, [said, *references])
    f1 = max(lm_eval_squad.f1_abstractive([said], [reference]) for reference in references)
    exact = float(words != "" and words in accepted)
    assert token_scores(said, references) == pytest.approx((exact, f1))


@given(SPAN, st.lists(SPANS, min_size=1, max_size=3))
def test_scores_are_fractions_and_exact_means_full_marks(
    said: str, answers: Sequence[Sequence[str]]
) -> None:
    flat = [span for answer in answers for span in answer]
    exact, f1 = token_scores(said, flat)
    assert 0 <= exact <= f1 <= 1
    em, drop_f1 = drop_scores([said], answers)
    assert 0 <= drop_f1 <= 1
    assert em in (0, 1)


@given(SPAN, st.lists(SPAN.filter(str.strip), min_size=1, max_size=4))
def test_spans_apart_are_an_upper_bound_of_spans_together(said: str, spans: list[str]) -> None:
    together = drop_scores([said], [spans])
    apart = drop_scores([said], [[span] for span in spans])
    assert apart[1] >= together[1]
