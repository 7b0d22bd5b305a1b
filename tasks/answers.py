"""Parsers of generated solutions to word problems: the last number, or the last option letter.

The paper (appendix D) reads the last number of the text and calls it right if it agrees with the
answer to 4 decimal places, or the last letter that is one of the options. What that leaves open is
settled in :func:`tasks.numbers.last_number` and :func:`last_option`. (The paper's public code takes
every number above the right one, and every text without a number, for right, and finds the option A
in the word "Answer".)
"""

from __future__ import annotations

import math
import re

from tasks.numbers import last_number, plain_numbers, same_number

OPTIONS = "ABCDE"

# Neither inside a word nor what an apostrophe or a degree sign belongs to: "A's", "I'D", "°C".
LETTER = re.compile(rf"(?<![\w°])(?<!\w['’])[{OPTIONS}](?!\w|['’]\w)")
SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'”’)]*\s|\n)\s*[\"'“‘]*$")
# "A is right" names the option where "A train is" does not.
ARTICLE = re.compile(r"\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]", re.IGNORECASE)


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
    text = plain_numbers(text).replace(",", "")
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
