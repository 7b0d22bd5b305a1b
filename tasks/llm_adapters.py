"""LLM-Adapters' data format: instructions with numbered answers, and the prompt around them.

Hu et al. 2023, "LLM-Adapters: An Adapter Family for Parameter-Efficient Fine-Tuning of Large
Language Models" (arXiv:2304.01933). Papers on commonsense fine-tuning, QuanTA's among them, train
and test on its rows ``{instruction, input, output, answer}``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """How the instructions of one data set are laid out; writes them and reads them back.

    Attributes:
        opening: the words before the question.
        stem: the labels' name without the number, such as ``"answer"``.
        most: the highest number that a generated text is searched for.
        between: what separates two choices.
        ending: what separates the choices from the answer format.
    """

    opening: str
    stem: str
    most: int
    between: str = " "
    ending: str = "\n\n"

    def labels(self, count: int) -> tuple[str, ...]:
        """``answer1``, ``answer2``, ..."""
        return tuple(f"{self.stem}{number}" for number in range(1, count + 1))

    def write(self, question: str, choices: tuple[str, ...]) -> str:
        """The instruction that asks this question with these choices."""
        labels = self.labels(len(choices))
        listed = self.between.join(
            f"{label.capitalize()}: {choice}" for label, choice in zip(labels, choices, strict=True)
        )
        return f"{self.opening}{question}\n\n{listed}{self.ending}Answer format: {'/'.join(labels)}"

    def read(self, instruction: str) -> tuple[str, tuple[str, ...]]:
        """Question and choices of an instruction; loses no character of either.

        Raises:
            ValueError: the instruction is laid out otherwise; says what is missing.
        """
        body = after(instruction, self.opening)
        body, _, names = body.rpartition(f"{self.ending}Answer format: ")
        labels = self.labels(names.count("/") + 1)
        if "/".join(labels) != names:
            raise ValueError(f"the answer format is {names!r}, not {'/'.join(labels)!r}")
        pieces = []
        separator = "\n\n"
        for label in labels:
            piece, found, body = body.partition(f"{separator}{label.capitalize()}: ")
            if not found:
                raise ValueError(f"{label.capitalize()!r} is missing")
            pieces.append(piece)
            separator = self.between
        return pieces[0], (*pieces[1:], body)


def after(instruction: str, opening: str) -> str:
    """The instruction without its opening words.

    Raises:
        ValueError: it opens with other words.
    """
    if not instruction.startswith(opening):
        raise ValueError(f"the instruction does not open with {opening!r}")
    return instruction.removeprefix(opening)


def answer_sentence(label: str) -> str:
    """The ``output`` field of a row."""
    return f"the correct answer is {label}"


def wrap(instruction: str) -> tuple[str, str]:
    """The prompt around an instruction, and the space that an answer to it starts with.

    LLM-Adapters writes its template as an indented block, so each line after the first starts
    with 16 spaces, and so does the answer. The last of them is given apart: tokenizers attach it to
    the word that follows, and a context that ended in it would be tokenised otherwise than the
    same text in training. (Its training script has one more space before the first line break and
    indents the blank lines; here training and testing read the same text, that of the test.)
    """
    indent = " " * 16
    lines = (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request. ",
        "",
        f"{indent}### Instruction:",
        f"{indent}{instruction}",
        "",
        f"{indent}### Response:",
        indent[1:],
    )
    return "\n".join(lines), " "
