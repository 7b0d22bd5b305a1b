"""LLM-Adapters' data format: instructions with numbered answers, and their prompt.

Hu et al. 2023, "LLM-Adapters: An Adapter Family for Parameter-Efficient Fine-Tuning of Large
Language Models" (arXiv:2304.01933). Papers on commonsense fine-tuning, including QuanTA's, train
and test on its rows ``{instruction, input, output, answer}``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The instruction template of one data set; writes and parses instructions.

    Attributes:
        opening: the text before the question.
        stem: the label without its number, such as ``"answer"``.
        most: the highest label number to look for in a generated text.
        between: separator between two choices.
        ending: separator between the choices and the answer format.
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
        """The instruction for a question and its choices."""
        labels = self.labels(len(choices))
        listed = self.between.join(
            f"{label.capitalize()}: {choice}" for label, choice in zip(labels, choices, strict=True)
        )
        return f"{self.opening}{question}\n\n{listed}{self.ending}Answer format: {'/'.join(labels)}"

    def read(self, instruction: str) -> tuple[str, tuple[str, ...]]:
        """Parse an instruction into question and choices, losslessly.

        Raises:
            ValueError: the instruction has a different layout; the message says what is missing.
        """
        body = after(instruction, self.opening)
        body, _, names = body.rpartition(f"{self.ending}Answer format: ")
        labels = self.labels(names.count("/") + 1)
        if "/".join(labels) != names:
            raise ValueError(f"the answer format is {names!r}, not {'/'.join(labels)!r}")
        pieces = []
        separator = "\n\n"
        for label in labels:
            piece, label_text, body = body.partition(f"{separator}{label.capitalize()}: ")
            if not label_text:
                raise ValueError(f"{label.capitalize()!r} is missing")
            pieces.append(piece)
            separator = self.between
        return pieces[0], (*pieces[1:], body)


def after(instruction: str, opening: str) -> str:
    """The instruction without its opening.

    Raises:
        ValueError: it starts differently.
    """
    if not instruction.startswith(opening):
        raise ValueError(f"the instruction does not open with {opening!r}")
    return instruction.removeprefix(opening)


def answer_sentence(label: str) -> str:
    """The ``output`` field of a row."""
    return f"the correct answer is {label}"


def wrap(instruction: str) -> tuple[str, str]:
    """The prompt for an instruction, and the space that its answer starts with.

    LLM-Adapters writes its template as an indented block, so each line after the first starts
    with 16 spaces, and so does the answer. The last space is returned separately: tokenizers attach
    it to the next word, and a context that ended in it would be tokenised differently from the same
    text in training. (Its training script has one more space before the first line break and
    indents the blank lines; here training and testing both use the text of the test script.)
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
