"""MATH10K (Hu et al. 2023, arXiv:2304.01933): math word problems for training."""

from __future__ import annotations

from quanta_bench.task import Example, HubRows, JsonRows, MissingDataError, Source, Split
from tasks.arithmetic import ArithmeticTask
from tasks.commonsense170k import validation_groups
from tasks.places import Place, read_rows


class Math10K(ArithmeticTask):
    """The training sets of GSM8K, AQuA and MAWPS in one file: 400 rows validate, 9,519 train.

    Answers are numbers or option letters; the parser follows the gold answer's type.
    """

    name = "math10k"
    title = "MATH10K"
    places = {
        # A widely used third-party copy; not checked against the original.
        "hub": Place(HubRows("lmms-lab/Math10K", None, "train")),
        "local": Place(JsonRows("ft-training_set/math_10k.json")),
    }

    def examples(self, source: Source, split: Split) -> list[Example]:
        """All items of a split, in row order."""
        if split == "test":
            raise MissingDataError(
                "MATH10K is for training and has no test rows; test on aqua, gsm8k, mawps, svamp."
            )
        if source.kind == "embedded":
            raise MissingDataError(
                "MATH10K is not in the embedded data. Use 'local:DIR' with a checkout of "
                "LLM-Adapters (ft-training_set/math_10k.json) or 'hub', or train on gsm8k or "
                "basic_arithmetic, which work offline."
            )
        items = read_rows(self, self.place(source).pool, source, "pool", self.example)
        held_out = validation_groups([item.group for item in items])
        return [item for item in items if (item.group in held_out) == (split == "validation")]
