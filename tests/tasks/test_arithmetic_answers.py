"""The parsers of solutions: every trap by hand, and laws for all numbers and texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import judge, last_number, last_option, read_gold, same_number

NUMBERS = [
    # Plain, and what stands around it.
    ("72", 72),
    ("The answer is 72.", 72),
    ("The answer is 72!", 72),
    ("The answer is 7.50.", 7.5),
    ("#### 72", 72),
    ("= 0.31 pounds", 0.31),
    (".5", 0.5),
    ("It is .25 of it", 0.25),
    ("Rs.50", 50),
    ("5kg", 5),
    ("the 2nd", 2),
    ("007", 7),
    ("7:30", 30),
    ("**18**", 18),
    # Which one is the last.
    ("5 - 3 = 2", 2),
    ("5+3=8", 8),
    ("He has 10 apples. The answer is 4.", 4),
    ("The answer is 4, of the 10 apples in the question", 10),
    ("1, 2, 3", 3),
    ("between 3 and 5", 5),
    # Signs, and minus signs that are none.
    ("-7", -7),
    ("The answer is -7.", -7),
    ("x = -7", -7),
    ("x=-7", -7),
    ("= - 7", -7),
    ("(-7)", -7),
    ("-$7", -7),
    ("$-7", -7),
    ("-$ 7.50", -7.5),
    ("5 - -7", -7),
    ("5 * -7", -7),
    ("\u22127", -7),
    ("is \u22127.5", -7.5),
    ("5 \u2212 3", 3),
    ("5 - 3", 3),
    ("5-3", 3),
    ("5 -3", 3),
    ("(2 + 3) - 4", 4),
    ("(2+3)-4", 4),
    ("50% - 4", 4),
    ("9 apples - 3", 3),
    ("covid-19", 19),
    ("3-5", 5),
    ("3\u20135 days", 5),
    ("3 - 5 days", 5),
    ("answer --7", 7),
    ("--7", 7),
    # Thousands.
    ("1,234", 1234),
    ("$1,234,567.89", 1234567.89),
    ("-1,234", -1234),
    ("12,34", 34),
    ("1,2345", 2345),
    ("12345,678", 678),
    ("1,234,56", 56),
    # Percent and currency.
    ("50%", 50),
    ("12.5 %", 12.5),
    ("$18", 18),
    ("18$", 18),
    ("£18.50", 18.5),
    # Fractions.
    ("3/4", 0.75),
    ("-3/4", -0.75),
    ("2 1/2", 2.5),
    ("-2 1/2", -2.5),
    ("$1/2", 0.5),
    ("1/2.", 0.5),
    ("1/2=0.5", 0.5),
    ("48 / 2", 2),
    ("48/2 = 24", 24),
    ("12/25/2020", 2020),
    ("1/0", 0),
    ("1.5/2", 2),
    ("1,200/60", 60),
    # Powers of ten.
    ("1.5e3", 1500),
    ("2E-3", 0.002),
    ("1.5 x 10^3", 1500),
    ("1.5 × 10^-3", 0.0015),
    ("1.5 * 10 ^ 3", 1500),
    ("-2e3", -2000),
    ("2 x 10 = 20", 20),
    ("3 eggs", 3),
    ("2e", 2),
    # Too large for a float.
    ("1e999", math.inf),
    ("-1e999", -math.inf),
    ("9" * 5000, math.inf),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_the_last_number(text: str, number: float) -> None:
    assert last_number(text) == pytest.approx(number, rel=1e-12)


@pytest.mark.parametrize("text", ["", "none", "twelve", "-", "$", "²", "IV"])
def test_no_number(text: str) -> None:
    assert last_number(text) is None


OPTIONS = [
    ("B", "B"),
    ("(B)", "B"),
    ("B)", "B"),
    ("B.", "B"),
    ("**B**", "B"),
    ('"B"', "B"),
    ("'B'", "B"),
    ("option C", "C"),
    ("Option C is right", "C"),
    ("The answer is D.", "D"),
    ("The answer is (D).", "D"),
    ("The answer is A because of it", "A"),
    ("The answer is A", "A"),
    ("(A) and so on", "A"),
    ("A", "A"),
    ("A.", "A"),
    ("A)", "A"),
    ("A is right", "A"),
    ("A because it fits", "A"),
    ("Answer: A", "A"),
    # The last one counts.
    ("Not A but B", "B"),
    ("B? No, (C).", "C"),
    ("The answer is C. (B) is wrong", "B"),
    # The article, words and other things that are no option.
    ("The answer is D. A train would be late.", "D"),
    ("D. A Train", "D"),
    ("D\nA train", "D"),
    ('D. "A train', "D"),
    ("A train leaves", None),
    ("Rationale: A train leaves", None),
    ("Answer", None),
    ("Answer: 23", None),
    ("Calculate Each Box", None),
    ("B2", None),
    ("2B", None),
    ("A's speed", None),
    ("I'D", None),
    ("it is 20°C", None),
    ("b", None),
    ("F", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "option"), OPTIONS)
def test_the_last_option(text: str, option: str | None) -> None:
    assert last_option(text) == option


JUDGED = [
    # The faults of the paper's public code: too large, no number, a letter of "Answer".
    ("The answer is 73.", "72", False),
    ("The answer is 1000000.", "72", False),
    ("The answer is 71.", "72", False),
    ("I do not know.", "72", False),
    ("", "72", False),
    ("1e999", "72", False),
    ("-1e999", "72", False),
    ("Answer: 23", "A", False),
    ("The answer is (B).", "B", True),
    ("The answer is (B).", "A", False),
    # A number is no letter and a letter no number.
    ("72", "B", False),
    ("B", "72", False),
    # To 4 decimal places.
    ("0.6667", "0.6666666666666667", True),
    ("2/3", "0.6666666666666667", True),
    ("0.67", "0.6666666666666667", False),
    ("0.6666", "0.6666666666666667", False),
    ("1.83333", "1.8333333333333335", True),
    ("72.00004", "72", True),
    ("72.0001", "72", False),
    ("72.0", "72", True),
    ("-72", "72", False),
    ("72", "-72", False),
    ("$2,125", "2125", True),
]


@pytest.mark.parametrize(("text", "gold", "right"), JUDGED)
def test_judging(text: str, gold: str, right: bool) -> None:
    assert judge(text, gold)[1] is right


def test_what_is_said_is_reported() -> None:
    assert judge("it is $1,234.50.", "3") == ("1234.5", False)
    assert judge("it is B", "C") == ("B", False)
    assert judge("nothing", "3") == (None, False)
    assert judge("2/3", "3") == ("0.666666666666667", False)


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("576.0", "576"),
        (" 2,125", "2125"),
        ("-10.0", "-10"),
        ("1.8333333333333335", "1.8333333333333335"),
        ("100", "100"),
        ("0.50", "0.50"),
        ("B", "B"),
    ],
)
def test_gold_answers(text: str, gold: str) -> None:
    assert read_gold(text) == gold


@pytest.mark.parametrize("text", ["", "F", "b", "AB", "five", "inf", "nan", "1/2"])
def test_other_gold_answers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"float|number"):
        read_gold(text)


FINITE = st.floats(-1e12, 1e12).map(lambda number: round(number, 4))


@given(FINITE, st.sampled_from(["{}", "The answer is {}.", "x = {}", "({})", "5 * 3 = {} km"]))
def test_a_number_is_found_as_python_writes_it(number: float, text: str) -> None:
    for form in ("", ",", ".4f", ",.4f"):
        assert last_number(text.format(format(number, form))) == number


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_fractions(over: int, under: int) -> None:
    assert last_number(f"It is {over}/{under}.") == pytest.approx(over / under)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.sampled_from([" - ", "-", " -", "–"]))
def test_a_difference_ends_in_a_positive_number(one: int, other: int, minus: str) -> None:
    assert last_number(f"{one}{minus}{other}") == other


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    assert last_option(text) in {None, *"ABCDE"}
    if last_number(text) is None:
        assert not any(char in "0123456789" for char in text)


@given(FINITE, st.floats(-1, 1))
def test_equality_is_symmetric_and_of_4_decimals(number: float, gap: float) -> None:
    other = number + gap
    assert same_number(number, other) == same_number(other, number)
    assert same_number(number, number)
    if abs(gap) > 1e-3:
        assert not same_number(number, other)


@given(st.sampled_from("ABCDE"), st.text("fghij .,()", max_size=20))
def test_a_letter_in_brackets_is_found_before_small_talk(letter: str, tail: str) -> None:
    assert last_option(f"A train, so ({letter}) {tail}") == letter
