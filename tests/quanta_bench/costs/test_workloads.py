"""The shipped lengths are what the data come to, and tokens of runs follow from them."""

from __future__ import annotations

from typing import Any

import pytest

from quanta_bench.costs.workloads import Lengths, measure, parts, workloads
from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import encode
from quanta_bench.data.pools import Pools, draw
from quanta_bench.errors import UsageError


@pytest.fixture(scope="module")
def tokenizer(offline: None) -> Any:
    from transformers import AutoTokenizer

    from quanta_bench.models import embedded

    return AutoTokenizer.from_pretrained(embedded.model_folder())


@pytest.mark.parametrize(
    ("task", "protocol"),
    [("openbookqa", "choice-text"), ("piqa", "choice-label"), ("gsm8k_rationales", "choice-text")],
)
def test_the_shipped_lengths_are_measured(task: str, protocol: str, tokenizer: Any) -> None:
    pool = Pools().get(task, "embedded", "test")
    found = measure(tokenizer, pool.task, draw(pool.examples, 1000, 0), protocol)
    assert workloads()[task].lengths[protocol] == found


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_of_a_batch_follow_from_the_lengths(packed: bool, tokenizer: Any) -> None:
    pool = Pools().get("openbookqa", "embedded", "test")
    items = [
        encode(tokenizer, item, pool.task.prompt(item, "choice-text"), max_length=512)
        for item in draw(pool.examples, 200, 1)
    ]
    batches = [collate([item], 0, packed=packed) for item in items]
    ((_, lengths),) = parts("openbookqa", "test", "choice-text", None)
    assert lengths.fed(packed=packed) * 200 == pytest.approx(
        sum(batch.tokens for batch in batches), rel=0.1
    )


def test_windows_by_hand() -> None:
    text = Lengths(context=1, answer=100, longest=101, text=True)
    # Eleven tokens a window and two of overlap: 10 new ones, then 9 each.
    count, mean = text.in_windows(11, scored=False)
    assert count == 11
    assert count * mean.fed(packed=False) == pytest.approx(100 + 10)
    # A text that fits is one window, fed without its last token.
    count, mean = text.in_windows(200, scored=True)
    assert (count, mean.fed(packed=False)) == (1, 100)


def test_a_mixture_is_its_tasks_in_their_shares() -> None:
    found = parts("commonsense170k", "train", "choice-label", None)
    assert sum(items for items, _ in found) == pytest.approx(170_020)
    assert sum(workloads()["commonsense170k"].mixture.values()) == 170_420
    assert len(found) == 8


def test_items_that_are_drawn_are_no_more_than_there_are() -> None:
    assert parts("rte", "test", "head", 100)[0][0] == 100
    assert parts("rte", "test", "head", 10_000)[0][0] == 277


@pytest.mark.parametrize("words", [("none_such", "head"), ("boolq", "head")])
def test_what_is_not_known_is_said(words: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="not known"):
        parts(words[0], "test", words[1], None)
