"""Numbers in the notations that models write, read as the numbers they mean."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import judge, read_gold
from tasks.numbers import last_number

WRITTEN = {
    "The answer is $1{,}234$.": 1234,
    r"\boxed{1{,}234{,}567}": 1234567,
    r"\boxed{\$1,234.50}": 1234.5,
    r"1\,234\,567": 1234567,
    r"so $x = 12\%$": 12,
    "so 1\u202f234 in all": 1234,
    "1\u00a0234\u00a0567,": 1234567,
    "1\u2009234.5": 1234.5,
    "1'234'567 francs": 1234567,
    "1_000_000": 1000000,
    "1,00,000": 100000,
    "12,34,567 rupees": 1234567,
    r"\frac{3}{4}": 0.75,
    r"$-\dfrac{3}{4}$": -0.75,
    r"\frac{-3}{4}": -0.75,
    r"2\tfrac{1}{2}": 2.5,
    r"\frac34": 0.75,
    "½": 0.5,
    "2½ cups": 2.5,
    "3\u20444": 0.75,
    "The answer is 18. [1]": 18,
    "The answer is 18.[1][2]\n": 18,
    "The answer is 18.[^1]": 18,
    "[18]": 18,
    "answer: [18]": 18,
    "\uff11\uff12": 12,
    "\uff0d\uff11\uff0c\uff12\uff13\uff14\uff0e\uff15": -1234.5,
    "\u0661\u0662": 12,
    "\u0661\u066c\u0662\u0663\u0664\u066b\u0665": 1234.5,
    "1~234 apples": 1234,
    r"{3 \over 4}": 0.75,
    r"-3\over{4}": -0.75,
    r"3\overline{4}": 4,
    "18 cm^2": 18,
    r"18\text{ cm}^2": 18,
    r"18 \mathrm{m}^{-2}": 18,
    "5 x^2 = 5 ^ 2": 2,
    "3 x 10^3": 3000,
    r"1.5 \times 10^{3}": 1500,
    r"1.5 \cdot 10^{-3}": 0.0015,
    "1.5 × 10³": 1500,
    "2 × 10⁻³": 0.002,
    "an area of 12 m²": 12,
    "= \u22123": -3,
    "-¥300": -300,
    "it's 5": 5,
    "pages 12, 345": 345,
}


@pytest.mark.parametrize(("text", "number"), WRITTEN.items(), ids=ascii)
def test_a_number_is_read_in_every_notation(text, number):
    assert last_number(text) == pytest.approx(number, abs=1e-12)


@pytest.mark.parametrize(("text", "gold"), [("1,234", "1234"), ("\uff11\uff12.0", "12")])
def test_the_right_answer_is_read_by_the_same_parser(text, gold):
    assert read_gold(text) == gold
    assert judge(text, gold)[1]


SEPARATORS = [",", "\u202f", "\u00a0", "\u2009", "'", "_", "~", "{,}", r"\,", r"\!"]


@given(st.integers(-(10**12), 10**12), st.sampled_from(SEPARATORS))
def test_any_separator_of_thousands(number, separator):
    assert last_number(f"= {number:,}".replace(",", separator)) == number


@given(
    st.integers(0, 999),
    st.integers(1, 999),
    st.sampled_from([r"\frac{%d}{%d}", r"\dfrac{ %d }{ %d }", "%d/%d", "%d\u2044%d"]),
)
def test_any_fraction(over, under, written):
    assert last_number("= " + written % (over, under)) == pytest.approx(
        float(Fraction(over, under))
    )


@given(st.integers(0, 10**9), st.sampled_from("\u0660\u06f0\u0966\uff10"))
def test_digits_of_any_script(number, zero):
    text = "".join(chr(ord(zero) + int(digit)) for digit in str(number))
    assert last_number(f"so {text}.") == number


@given(st.text(max_size=40))
def test_any_text_is_read_without_an_error(text):
    last_number(text)
