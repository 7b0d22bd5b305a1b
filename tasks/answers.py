"""Parsers of generated solutions to word problems: the last number, or the last option letter.

The paper (appendix D) reads the last number of the text and calls it right if it agrees with the
answer to 4 decimal places, or the last letter that is one of the options. What that leaves open is
settled here, in :func:`last_number` and :func:`last_option`. (The paper's public code takes every
number above the right one, and every text without a number, for right, and finds the option A in
the word "Answer".)
"""

from __future__ import annotations

import math
import re

OPTIONS = "ABCDE"

TOLERANCE = 0.5e-4
"""Half a unit of the fourth decimal place."""

# Minus signs and dashes that models write for one, each a single character.
MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\u2012\ufe63\uff0d", "-"))

NUMBER = re.compile(
    r"""
    # 3/4 or 2 1/2, but no part of 12/25/2020
    (?<![\w/.,]) (?:(?P<units>[0-9]+)[ ])? (?P<over>[0-9]+)/(?P<under>[0-9]+)
    (?![0-9]|[/.,][0-9])
    |
    (?P<plain>
        (?: [0-9]{1,3}(?:,[0-9]{3})+(?![0-9]) | [0-9]+ ) (?:\.[0-9]+)?
        | (?<![\w.])\.[0-9]+
    )
    (?: [eE](?P<exponent>[+-]?[0-9]+)(?!\w) | \s*[x×*]\s*10\s*\^\s*(?P<power>[+-]?[0-9]+) )?
    """,
    re.VERBOSE,
)
CURRENCY = re.compile(r"[$€£]\s*$")
SIGN = re.compile(r"-(\s*)$")

# Neither inside a word nor what an apostrophe or a degree sign belongs to: "A's", "I'D", "°C".
LETTER = re.compile(rf"(?<![\w°])(?<!\w['’])[{OPTIONS}](?!\w|['’]\w)")
SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'”’)]*\s|\n)\s*[\"'“‘]*$")
# "A is right" names the option where "A train is" does not.
ARTICLE = re.compile(r"\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]", re.IGNORECASE)


def last_number(text: str) -> float | None:
    """The last number in a text, or ``None``.

    - Thousands may be separated by commas: "1,234" is one number, "1, 2" and "12,34" are two.
    - "$", "%", units and a full stop after the number are ignored: "50%" is 50.
    - A fraction without spaces is one number ("3/4", "2 1/2"); "48 / 2" is a computation, whose
      last number is 2.
    - "1.5e3", "1.5 x 10^3" and "1.5 * 10^3" are 1500.
    - A minus is a sign unless it takes one thing from another or joins two: "= -3", "is -3", "-$3"
      and "(-3)" are negative; "5 - 3", "3-5", "covid-19" and "9 apples - 3" end in a positive
      number. Dashes and the minus of Unicode count as one.

    Returns:
        The number as a float; infinite where it exceeds the range of one.
    """
    text = text.translate(MINUS)
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    size = _size(numbers[-1])
    return -size if _is_negative(text[: numbers[-1].start()]) else size


def _size(found: re.Match[str]) -> float:
    if found["plain"]:
        digits = found["plain"].replace(",", "")
        return float(f"{digits}e{found['exponent'] or found['power'] or 0}")
    # int() refuses texts of more than a few thousand digits.
    under = float(found["under"])
    if under == 0:
        return under
    return float(found["units"] or 0) + float(found["over"]) / under


def _is_negative(before: str) -> bool:
    """Whether what stands before a number ends in a sign."""
    minus = SIGN.search(CURRENCY.sub("", before))
    if minus is None:
        return False
    left = before[: minus.start()]
    operand = left.rstrip()[-1:]
    if operand.isdigit() or operand in {")", "]", "%"}:
        return False
    if operand.isalpha() or operand == "-":
        return left != left.rstrip() and not minus[1]
    return True


def same_number(one: float, other: float) -> bool:
    """Whether two numbers agree to 4 decimal places; nothing agrees with an infinite one."""
    finite = math.isfinite(one) and math.isfinite(other)
    return finite and math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE)


def last_option(text: str) -> str | None:
    """The last capital letter from A to E that stands alone in a text, or ``None``.

    "B", "(B)", "B)", "option B" and "the answer is B." all name B. No option is a letter of a word
    ("Answer"), one with an apostrophe ("A's") and the article: an A that opens a sentence and is
    followed by a word other than is, was, because, since, as, and, or.
    """
    found = None
    for letter in LETTER.finditer(text):
        opens = letter[0] == "A" and SENTENCE_START.search(text, 0, letter.start())
        if not (opens and ARTICLE.match(text, letter.end())):
            found = letter[0]
    return found


def read_gold(text: str) -> str:
    """A data set's answer, as a solution would state it: an option letter or a number.

    Numbers lose thousands separators and the decimals of a whole number: "2,125" and "2125.0" are
    "2125".

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if len(text) == 1 and text in OPTIONS:
        return text
    text = text.replace(",", "")
    if not math.isfinite(float(text)):
        raise ValueError(f"the answer {text!r} is not a number")
    return re.sub(r"\.0+$", "", text)


def judge(text: str, gold: str) -> tuple[str | None, bool]:
    """What a text answers, and whether that is right.

    Args:
        text: the generated text.
        gold: the right answer, from :func:`read_gold`. A letter looks for a letter, a number for
            a number.

    Returns:
        The answer as found, ``None`` if there is none, which is wrong.
    """
    if gold.isalpha():
        option = last_option(text)
        return option, option == gold
    number = last_number(text)
    if number is None:
        return None, False
    return format(number, ".15g"), same_number(number, float(gold))
