"""Parsers of generated solutions to word problems: the last number, or the last option letter.

The paper (appendix D) takes the last number of the text, correct if it matches the answer to 4
decimal places, or the last letter that is one of the options. :func:`tasks.numbers.last_number` and
:func:`last_option` settle what that leaves open. (The paper's public code accepts every number
above the correct one and every text without a number, and reads option A out of the word "Answer".)
"""

from __future__ import annotations

import math
import re

from tasks.numbers import last_number, plain_numbers, same_number

OPTIONS = "ABCDE"

# Not inside a word, and not next to an apostrophe or a degree sign: "A's", "I'D", "°C".
LETTER = re.compile(rf"(?<![\w°])(?<!\w['’])[{OPTIONS}](?!\w|['’]\w)")
SENTENCE_START = re.compile(r"(?:^|[.!?:][\"'”’)]*\s|\n)\s*[\"'“‘]*$")
# "A is right" names the option; "A train is" does not.
ARTICLE = re.compile(r"\s+(?!(?:is|was|because|since|as|and|or)\b)[a-z]", re.IGNORECASE)


def last_option(text: str) -> str | None:
    """The last standalone capital letter from A to E in a text, or ``None``.

    "B", "(B)", "B)", "option B" and "the answer is B." all name B. A letter inside a word
    ("Answer") or with an apostrophe ("A's") is not an option, nor is the article: an A that opens a
    sentence and is followed by a word other than is, was, because, since, as, and, or.
    """
    option = None
    for letter in LETTER.finditer(text):
        opens = letter[0] == "A" and SENTENCE_START.search(text, 0, letter.start())
        if not (opens and ARTICLE.match(text, letter.end())):
            option = letter[0]
    return option


def read_gold(text: str) -> str:
    """Normalise a data set's gold answer: an option letter or a number.

    Numbers lose thousands separators and trailing zero decimals: "2,125" and "2125.0" become
    "2125".

    Raises:
        ValueError: the answer is neither.
    """
    text = text.strip()
    if len(text) == 1 and text in OPTIONS:
        return text
    text = plain_numbers(text).replace(",", "")
    if not math.isfinite(float(text)):
        raise ValueError(f"the answer {text!r} is not a number")
    return re.sub(r"\.0+$", "", text)


def judge(text: str, gold: str) -> tuple[str | None, bool]:
    """Parse the answer in a text and compare it with the gold answer.

    Args:
        text: the generated text.
        gold: the gold answer, from :func:`read_gold`. Its type, letter or number, selects the
            parser.

    Returns:
        The parsed answer, and whether it is correct. ``None``, if nothing parses, is incorrect.
    """
    if gold.isalpha():
        option = last_option(text)
        return option, option == gold
    number = last_number(text)
    if number is None:
        return None, False
    return format(number, ".15g"), same_number(number, float(gold))
