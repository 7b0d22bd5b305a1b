"""Parse numbers as people and models write them into floats; all tasks share this parser.

A text is first normalised, so that numbers consist of ASCII digits, signs, commas and points only;
then its last number is parsed. Notation is normalised (digits of other scripts, LaTeX, thousands
separators, footnote markers). Words are not: "1.2 million" is 1.2, as in the public evaluation
scripts of GSM8K and LLM-Adapters.
"""

from __future__ import annotations

import math
import re
import unicodedata

TOLERANCE = 0.5e-4
"""Half a unit of the fourth decimal place."""

# Minus signs, and dashes that models write instead; each is a single character.
MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\u2012\ufe63\uff0d", "-"))

ARABIC = {"\u066b": ".", "\u066c": ","}
"""The decimal and the thousands separator that go with Arabic digits."""

SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")

NUMBER = re.compile(
    r"""
    # 3/4 or 2 1/2, but not part of 12/25/2020
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
    # 1 234 with a non-breaking space, 1~234, 1'234, 1_234, 1\,234
    (
        re.compile(
            r"(?<=[0-9])(?:[\u00a0\u2007-\u2009\u202f'’_~]|\\[,;:! ]|\\thinspace\s?)+"
            r"(?=[0-9]{3}(?![0-9]))"
        ),
        "",
    ),
    # a footnote marker after a sentence
    (re.compile(r"(?<=[.!?])\s*(?:\[\^?[0-9]{1,3}\])+(?=\s|$)"), ""),
)
_POWER = re.compile(r"([x×*]\s*10)([⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_VULGAR = re.compile(r"([0-9]?)([¼-¾⅐-⅞])")


def plain_numbers(text: str) -> str:
    """Normalise the numbers of a text: ASCII digits, commas between thousands, ``3/4``."""
    if text.isascii() and "\\" not in text and not set("{'_[~^") & set(text):
        return text
    text = "".join(map(_plain_character, text.translate(MINUS)))
    text = _VULGAR.sub(_fraction, text).replace("\u2044", "/").replace("\u2215", "/")
    text = _POWER.sub(lambda m: f"{m[1]}^{m[2].translate(SUPERSCRIPTS)}", text)
    for pattern, plain in _REWRITES:
        text = pattern.sub(plain, text)
    return text


def _plain_character(character: str) -> str:
    """The ASCII form of a digit of any script or of a full-width character."""
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in ARABIC:
        return ARABIC[character]
    code = ord(character)
    # The full-width block has the same order as ASCII.
    return chr(code - 0xFEE0) if 0xFF01 <= code <= 0xFF5E else character


def _fraction(match: re.Match[str]) -> str:
    over, _, under = unicodedata.normalize("NFKC", match[2]).partition("\u2044")
    return f"{match[1]}{' ' if match[1] else ''}{over}/{under}"


def last_number(text: str) -> float | None:
    """The last number in a text, or ``None``.

    - Thousands may be separated by commas, non-breaking spaces, apostrophes, underscores and
      LaTeX's ``{,}``, ``~`` and ``\\,``: "1,234" is one number, "1, 2" and "12,34" are two;
      "1,00,000" is a lakh.
    - "$", "%", units and a full stop after the number are ignored: "50%" is 50.
    - A fraction without spaces is one number ("3/4", "2 1/2", "½", "\\frac{3}{4}",
      "3 \\over 4"); "48 / 2" is a computation whose last number is 2.
    - "1.5e3", "1.5 x 10^3" and "1.5 * 10^3" are 1500, also with a superscript 3.
    - A minus is a sign unless it is a subtraction or a hyphen: "= -3", "is -3", "-$3" and "(-3)"
      are negative; "5 - 3", "3-5", "covid-19" and "9 apples - 3" end in a positive number. Dashes
      and the Unicode minus count as minus.
    - Digits may be of any script, including full-width ones.
    - A footnote marker after a sentence ("18. [1]", "18.[^1]") is not a number, nor is the power
      of a unit or a variable ("18 cm^2").

    Returns:
        The number as a float; infinite if it exceeds the range of a float.
    """
    text = plain_numbers(text)
    numbers = list(NUMBER.finditer(text))
    if not numbers:
        return None
    magnitude = _magnitude(numbers[-1])
    return -magnitude if _is_negative(text[: numbers[-1].start()]) else magnitude


def _magnitude(match: re.Match[str]) -> float:
    if match["plain"]:
        digits = match["plain"].replace(",", "")
        return float(f"{digits}e{match['exponent'] or match['power'] or 0}")
    # int() rejects strings of more than a few thousand digits.
    under = float(match["under"])
    if under == 0:
        return under
    return float(match["units"] or 0) + float(match["over"]) / under


def _is_negative(before: str) -> bool:
    """Whether the text before a number ends in a minus sign."""
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


def same_number(a: float, b: float) -> bool:
    """Whether two numbers agree to 4 decimal places; an infinite number agrees with nothing."""
    finite = math.isfinite(a) and math.isfinite(b)
    return finite and math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE)
