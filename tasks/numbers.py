"""Numbers as people and models write them, read into floats: one parser for all tasks.

A text is first brought into plain form, in which only ASCII digits, signs, commas and points make a
number; then its last number is read. What is a matter of notation is undone (digits of other
scripts, LaTeX, separators of thousands, marks of footnotes). What is a matter of words is not:
"1.2 million" is 1.2, as in the public evaluation scripts of GSM8K and LLM-Adapters.
"""

from __future__ import annotations

import math
import re
import unicodedata

TOLERANCE = 0.5e-4
"""Half a unit of the fourth decimal place."""

# Minus signs and dashes that models write for one, each a single character.
MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\u2012\ufe63\uff0d", "-"))

ARABIC = {"\u066b": ".", "\u066c": ","}
"""The decimal and the thousands separator that go with Arabic digits."""

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

NUMBER = re.compile(
    r"""
    # 3/4 or 2 1/2, but no part of 12/25/2020
    (?<![\w/.,]) (?:(?P<units>[0-9]+)[ ])? (?P<over>[0-9]+)/(?P<under>[0-9]+)
    (?![0-9]|[/.,][0-9])
    |
    (?P<plain>
        # 1,234,567, then 12,34,567 as in India, then digits alone
        (?: [0-9]{1,3}(?:,[0-9]{3})+(?![0-9]) | [0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?![0-9])
            | [0-9]+ ) (?:\.[0-9]+)?
        | (?<![\w.])\.[0-9]+
    )
    (?: [eE](?P<exponent>[+-]?[0-9]+)(?!\w) | \s*[x×*]\s*10\s*\^\s*(?P<power>[+-]?[0-9]+) )?
    """,
    re.VERBOSE,
)
CURRENCY = re.compile(r"[$€£¥₹]\s*$")
SIGN = re.compile(r"-(\s*)$")

_REWRITES = (
    # LaTeX: 1{,}234, \$, \%, thin spaces, \times, \boxed{18}, \text{18}
    (re.compile(r"\{\s*([,.])\s*\}"), r"\1"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm|mathit|mbox)\s*\{([^{}]*)\}"), r"\1"),
    # \frac{3}{4}, 2\frac{1}{2}, \frac34, \frac{-3}{4}
    (re.compile(r"(?<=[0-9])\s*(?=\\[dtc]?frac)"), " "),
    (re.compile(r"\\[dtc]?frac\s*\{\s*(-?\s*[0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}"), r"\1/\2"),
    (re.compile(r"\\[dtc]?frac\s*([0-9])\s*([0-9])"), r"\1/\2"),
    (re.compile(r"(-?[0-9]+)\s*\\over(?![a-zA-Z])\s*\{?\s*([0-9]+)"), r"\1/\2"),
    (re.compile(r"\^\s*\{\s*([+-]?[0-9]+)\s*\}"), r"^\1"),
    # the power of a unit or of a variable, as in cm^2
    (re.compile(r"(?<=[a-zA-Z])\s?\^\s?[+-]?[0-9]+"), ""),
    # 1 234 with a space that does not break, 1~234, 1'234, 1_234, 1\,234
    (
        re.compile(
            r"(?<=[0-9])(?:[\u00a0\u2007-\u2009\u202f'’_~]|\\[,;:! ]|\\thinspace\s?)+"
            r"(?=[0-9]{3}(?![0-9]))"
        ),
        "",
    ),
    # a footnote's mark after a sentence
    (re.compile(r"(?<=[.!?])\s*(?:\[\^?[0-9]{1,3}\])+(?=\s|$)"), ""),
)
_POWER = re.compile(r"([x×*]\s*10)([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_VULGAR = re.compile(r"([0-9]?)([¼-¾⅐-⅞])")


def plain_numbers(text: str) -> str:
    """A text with its numbers in plain form: ASCII digits, commas between thousands, ``3/4``."""
    if text.isascii() and "\\" not in text and not set("{'_[~^") & set(text):
        return text
    text = "".join(map(_plain_character, text.translate(MINUS)))
    text = _VULGAR.sub(_fraction, text).replace("\u2044", "/").replace("\u2215", "/")
    text = _POWER.sub(lambda m: f"{m[1]}^{m[2].translate(SUPERSCRIPTS)}", text)
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    return text


def _plain_character(character: str) -> str:
    """A digit of any script as an ASCII one, and full-width marks as ASCII ones."""
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in ARABIC:
        return ARABIC[character]
    code = ord(character)
    # The block of full-width forms repeats ASCII in its order.
    return chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else character


def _fraction(found: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", found[2]).partition("\u2044")
    return f"{found[1]}{' ' if found[1] else ''}{over}/{under}"


def last_number(text: str) -> float | None:
    """The last number in a text, or ``None``.

    - Thousands may be separated by commas, or by spaces that do not break, apostrophes, low lines
      and LaTeX's ``{,}``, ``~`` and ``\\,``: "1,234" is one number, "1, 2" and "12,34" are two;
      "1,00,000" is a lakh.
    - "$", "%", units and a full stop after the number are ignored: "50%" is 50.
    - A fraction without spaces is one number ("3/4", "2 1/2", "½", "\\frac{3}{4}",
      "3 \\over 4"); "48 / 2" is a computation, whose last number is 2.
    - "1.5e3", "1.5 x 10^3" and "1.5 * 10^3" are 1500, also with a raised 3.
    - A minus is a sign unless it takes one thing from another or joins two: "= -3", "is -3", "-$3"
      and "(-3)" are negative; "5 - 3", "3-5", "covid-19" and "9 apples - 3" end in a positive
      number. Dashes and the minus of Unicode count as one.
    - Digits may be of any script, full-width ones too.
    - The mark of a footnote after a sentence ("18. [1]", "18.[^1]") is no number of it, nor is the
      power of a unit or a variable ("18 cm^2").

    Returns:
        The number as a float; infinite where it exceeds the range of one.
    """
    text = plain_numbers(text)
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
