"""Answers that a model writes to instructions, compared with the data's own by their words.

The items, prompts and splits are those of the perplexity tasks of :mod:`tasks.instructions`, so a
training on one of these can be scored both ways.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from quanta_bench.task import Answer, Example, Prompt, Source, Split, Task
from tasks.instructions import CPsyCounD, GSM8KRationales, InstructionTask
from tasks.metrics import TEXT_METRICS

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


class WrittenAnswer(Task):
    """The answer to an instruction, in the model's own words.

    Metrics, both means over answers: ``rouge_l``, and ``bleu``, BLEU-4 of each answer by sacreBLEU,
    smoothed, with shorter n-grams alone for answers of fewer than four words.

    Class attributes:
        instructions: the perplexity task whose items these are.
        tokenizer: sacreBLEU's name of what splits answers into words, for both metrics.
    """

    kind = "generate"
    metric = "rouge_l"
    metrics = ("rouge_l", "bleu")
    protocols = ("generate",)
    instructions: ClassVar[InstructionTask]
    tokenizer: ClassVar[str] = "13a"

    def examples(self, source: Source, split: Split) -> list[Example]:
        """The items of the perplexity task, in its order and under its names."""
        return [
            replace(example, references=(example.fields["answer"],))
            for example in self.instructions.examples(source, split)
        ]

    def prompt(self, example: Example, protocol: str) -> Prompt:
        """The prompt of the perplexity task."""
        return self.instructions.prompt(example, protocol)

    def judge_text(self, example: Example, text: str) -> Answer:
        """Compare a text with the data's answer."""
        answer, reference = text.strip(), example.references[0]
        bleu = _bleu(self.tokenizer)
        words = bleu.tokenizer
        scores = {
            "rouge_l": TEXT_METRICS["rouge_l"](words(answer), words(reference)),
            # Of an equal text it is a rounding error above one.
            "bleu": min(bleu.sentence_score(answer, [reference]).score / 100, 1.0),
        }
        return Answer(answer or None, reference, scores)


class GSM8KWritten(WrittenAnswer):
    """Worked answers to the word problems of GSM8K; the next question ends one."""

    name = "gsm8k_written"
    title = "GSM8K written"
    grouped_by = GSM8KRationales.grouped_by
    instructions = GSM8KRationales()
    stop = ("\nQuestion:",)


class CPsyCounDWritten(WrittenAnswer):
    """The counsellor's next reply in a dialogue of CPsyCounD; a Chinese character is a word."""

    name = "cpsycound_written"
    title = "CPsyCounD written"
    grouped_by = CPsyCounD.grouped_by
    instructions = CPsyCounD()
    tokenizer = "zh"
    stop = ("\n来访者",)


@cache
def _bleu(tokenizer: str) -> BLEU:
    # Loading it takes a tenth of a second, which listings need not wait for.
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, tokenize=tokenizer)
