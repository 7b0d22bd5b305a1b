"""The workload of each task, in items and tokens, for plans that read no data.

``workloads.yaml`` holds, for each task named by a table, the number of items in each split and
the mean lengths of an item under each protocol, with their sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import Field

from quanta_bench.data.encoding import encode, encode_pair
from quanta_bench.data.windows import TRAINING_OVERLAP, scoring_overlap, spans
from quanta_bench.errors import UsageError
from quanta_bench.plugins import find_protocol
from quanta_bench.references import short_names
from quanta_bench.spec import Frozen
from quanta_bench.task import Example, Split, Task
from quanta_bench.utils.yaml import parse_yaml

UNBOUNDED = 2**31


class Lengths(Frozen):
    """Mean size of an item, in tokens.

    Attributes:
        context: before the answer.
        candidates: number of candidates; 1 without a choice, 0 for an encoder, which generates
            nothing.
        answer: one candidate, with its end token if it has one.
        longest: context and all candidates of the longest measured item.
        generated: the longest answer of a generation batch.
        text: whether the answer is running text, read in windows of the model's length.
    """

    context: float = Field(ge=0)
    candidates: float = Field(1, ge=0)
    answer: float = Field(0, ge=0)
    longest: int = Field(ge=1)
    generated: float = 0
    text: bool = False

    def fed(self, *, packed: bool) -> float:
        """Tokens of an item fed to the model, without padding.

        The last token of a candidate predicts nothing and is not fed.
        """
        if not self.candidates:
            return self.context
        if packed:
            return self.context + self.candidates * (self.answer - 1)
        return self.candidates * (self.context + self.answer - 1)

    def one_answer(self) -> Lengths:
        """The same item with only its right answer, for language modelling."""
        return self.model_copy(update={"candidates": min(1.0, self.candidates)})

    def in_windows(self, max_length: int, *, scored: bool) -> tuple[int, Lengths]:
        """The number of windows that the text is read in, and the mean window."""
        context, answer = round(self.context), round(self.answer)
        overlap = scoring_overlap(max_length) if scored else min(TRAINING_OVERLAP, max_length - 1)
        windows = list(spans(context, answer, max_length, overlap))
        fed = 0
        for start, end in windows:
            before = min(context + start, overlap if start else max_length - end)
            fed += before + (end - start) - 1
        mean = {"context": 1.0, "answer": fed / len(windows)}
        return len(windows), self.model_copy(update=mean)


class Workload(Frozen):
    """The workload of a task.

    Attributes:
        items: number of items by split, as this suite splits the published data.
        lengths: mean lengths by protocol.
        mixture: for training data mixed from other tasks, the number of items of each.
        origin: source of the numbers of items.
        measured: the data on which lengths were measured; empty for the embedded data.
    """

    items: dict[Split, int]
    lengths: dict[str, Lengths] = Field(default_factory=dict)
    mixture: dict[str, int] = Field(default_factory=dict)
    origin: str
    measured: str = ""


@cache
def workloads() -> Mapping[str, Workload]:
    """Every task's workload, by the task's name."""
    text = files("quanta_bench.costs").joinpath("workloads.yaml").read_text(encoding="utf-8")
    return {name: Workload.model_validate(entry) for name, entry in parse_yaml(text).items()}


def parts(
    task: str, split: Split, protocol: str, sample: int | None
) -> list[tuple[float, Lengths]]:
    """The number and lengths of a task's items in a split.

    Args:
        task: the task, as on the command line.
        split: the split.
        protocol: the protocol.
        sample: size of the sample; ``None`` for all items.

    Returns:
        One pair of number and lengths, or one for each task of a mixture.

    Raises:
        UsageError: the lengths or the number of items are not known.
    """
    name = short_names([task])[task]
    workload = workloads().get(task.partition(":")[0])
    if workload is None:
        raise UsageError(f"the lengths of the task {name!r} are not known")
    if split not in workload.items and sample is None:
        raise UsageError(f"how many {split} items the task {name!r} has is not known")
    available = workload.items.get(split, sample or 0)
    items = available if sample is None else min(available, sample)
    if not workload.mixture:
        if protocol not in workload.lengths:
            raise UsageError(
                f"the lengths of the task {name!r} under the protocol {protocol!r} are not known"
            )
        return [(items, workload.lengths[protocol])]
    total = sum(workload.mixture.values())
    return [
        (items * share / total, lengths)
        for name, share in workload.mixture.items()
        for _, lengths in parts(name, "test", protocol, None)
    ]


def measure(tokenizer: Any, task: Task, examples: Sequence[Example], protocol: str) -> Lengths:
    """The mean lengths of items, tokenised as a run tokenises them.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        task: the task.
        examples: its items.
        protocol: the protocol; ``head`` for the sentences of a classification task.
    """
    from quanta_bench.evaluation.evaluators import GENERATION_BATCH

    rules = find_protocol(protocol)
    if not rules.prompts:
        read = [len(tokenizer(*item.fields["sentences"])["input_ids"]) for item in examples]
        # The start token, and the end tokens after and between sentences.
        extra = [2 * len(item.fields["sentences"]) for item in examples]
        sizes = [a + b for a, b in zip(read, extra, strict=True)]
        return Lengths(context=_mean(sizes), candidates=0, longest=max(sizes))
    prompts = [task.prompt(example, protocol) for example in examples]
    if task.kind == "perplexity":
        pairs = [encode_pair(tokenizer, prompt.context, prompt.target) for prompt in prompts]
        return Lengths(
            context=_mean([len(context) for context, _ in pairs]),
            answer=_mean([len(answer) for _, answer in pairs]),
            longest=max(len(context) + len(answer) for context, answer in pairs),
            text=True,
        )
    encoded = [
        encode(tokenizer, example, prompt, max_length=UNBOUNDED, closed=rules.closed)
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    answers = [len(tokens) for item in encoded for tokens in item.candidates]
    written = [len(item.candidates[0]) for item in encoded]
    batches = [written[i : i + GENERATION_BATCH] for i in range(0, len(written), GENERATION_BATCH)]
    return Lengths(
        context=_mean([len(context) for item in encoded for context in item.contexts]),
        candidates=_mean([len(item.candidates) for item in encoded]),
        answer=_mean(answers),
        longest=max(len(item.contexts[0]) + sum(map(len, item.candidates)) for item in encoded),
        generated=_mean([max(batch) for batch in batches]) if rules.generates else 0,
    )


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 1)
