"""How much there is to compute: items and tokens of each task, for plans that read no data.

``workloads.yaml`` holds, for each task that a table names, the number of items in each split and
the mean lengths of an item under each protocol, with where each comes from.
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
from quanta_bench.spec import Frozen
from quanta_bench.task import Example, Split, Task
from quanta_bench.utils.yaml import parse_yaml

UNBOUNDED = 2**31


class Lengths(Frozen):
    """Mean size of an item, in tokens.

    Attributes:
        context: before the answer.
        candidates: how many continuations are compared; 1 where there is nothing to choose, 0
            where an encoder reads the item and says no words.
        answer: of one continuation, its end mark included where it has one.
        longest: context and all continuations of the longest item that was measured.
        generated: the longest answer of a batch that is generated together.
        text: whether the answer is a text that is read in windows of a model's length.
    """

    context: float = Field(ge=0)
    candidates: float = Field(1, ge=0)
    answer: float = Field(0, ge=0)
    longest: int = Field(ge=1)
    generated: float = 0
    text: bool = False

    def fed(self, *, packed: bool) -> float:
        """Tokens that an item puts into a batch, padding not counted.

        The last token of a continuation predicts nothing and is not fed.
        """
        if not self.candidates:
            return self.context
        if packed:
            return self.context + self.candidates * (self.answer - 1)
        return self.candidates * (self.context + self.answer - 1)

    def one_answer(self) -> Lengths:
        """The same item with its right answer alone, for language modelling."""
        return self.model_copy(update={"candidates": min(1.0, self.candidates)})

    def in_windows(self, max_length: int, *, scored: bool) -> tuple[int, Lengths]:
        """How many windows the text is read in, and the mean one."""
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
    """What is known of a task.

    Attributes:
        items: number of items by split, as this suite cuts the published data.
        lengths: mean lengths by protocol.
        mixture: for training data made of other tasks' items, how many of each.
        origin: where the numbers of items come from.
        measured: on which data the lengths were measured; empty for the embedded data.
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
    return {name: Workload.model_validate(one) for name, one in parse_yaml(text).items()}


def parts(task: str, split: Split, protocol: str, drawn: int | None) -> list[tuple[float, Lengths]]:
    """A task's items in a split: how many there are of which lengths.

    Args:
        task: the task, by the words that name it.
        split: the split.
        protocol: how items are put to the model.
        drawn: how many are drawn; ``None`` for all.

    Returns:
        One pair, or one for each task whose items are mixed in this one.

    Raises:
        UsageError: the lengths or the number of items are not known.
    """
    found = workloads().get(task.partition(":")[0])
    if found is None:
        raise UsageError(f"the lengths of the task {task!r} are not known")
    if split not in found.items and drawn is None:
        raise UsageError(f"how many {split} items the task {task!r} has is not known")
    there = found.items.get(split, drawn or 0)
    items = there if drawn is None else min(there, drawn)
    if not found.mixture:
        if protocol not in found.lengths:
            raise UsageError(
                f"the lengths of the task {task!r} under the protocol {protocol!r} are not known"
            )
        return [(items, found.lengths[protocol])]
    whole = sum(found.mixture.values())
    return [
        (items * share / whole, lengths)
        for name, share in found.mixture.items()
        for _, lengths in parts(name, "test", protocol, None)
    ]


def measure(tokenizer: Any, task: Task, examples: Sequence[Example], protocol: str) -> Lengths:
    """The mean lengths of items, tokenised as a run tokenises them.

    Args:
        tokenizer: a ``transformers`` tokenizer.
        task: the task.
        examples: its items.
        protocol: how they are put; ``head`` for the sentences of a task with labels.
    """
    from quanta_bench.evaluation.evaluators import GENERATION_BATCH

    put = find_protocol(protocol)
    if not put.prompts:
        read = [len(tokenizer(*item.fields["sentences"])["input_ids"]) for item in examples]
        # The start token, and an end token after each sentence and between two.
        extra = [2 * len(item.fields["sentences"]) for item in examples]
        sizes = [a + b for a, b in zip(read, extra, strict=True)]
        return Lengths(context=_mean(sizes), candidates=0, longest=max(sizes))
    prompts = [task.prompt(example, protocol) for example in examples]
    if task.kind == "perplexity":
        pairs = [encode_pair(tokenizer, one.context, one.target) for one in prompts]
        return Lengths(
            context=_mean([len(context) for context, _ in pairs]),
            answer=_mean([len(answer) for _, answer in pairs]),
            longest=max(len(context) + len(answer) for context, answer in pairs),
            text=True,
        )
    encoded = [
        encode(tokenizer, example, prompt, max_length=UNBOUNDED, closed=put.closed)
        for example, prompt in zip(examples, prompts, strict=True)
    ]
    answers = [len(tokens) for item in encoded for tokens in item.candidates]
    last = [len(item.candidates[0]) for item in encoded]
    batches = [last[i : i + GENERATION_BATCH] for i in range(0, len(last), GENERATION_BATCH)]
    return Lengths(
        context=_mean([len(context) for item in encoded for context in item.contexts]),
        candidates=_mean([len(item.candidates) for item in encoded]),
        answer=_mean(answers),
        longest=max(len(item.contexts[0]) + sum(map(len, item.candidates)) for item in encoded),
        generated=_mean([max(batch) for batch in batches]) if put.generates else 0,
    )


def _mean(values: Sequence[int]) -> float:
    return round(sum(values) / len(values), 1)
