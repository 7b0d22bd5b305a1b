"""The share of padding that the benchmark of training reports, counted anew from masks."""

from __future__ import annotations

import pytest

from quanta_bench.benchmark import Conditions
from quanta_bench.benchmarks.materials import Materials
from quanta_bench.benchmarks.padding import alone, data_of, padding, scoring, share, steps
from quanta_bench.data.pools import Pools


def test_a_share_is_of_all_batches_together() -> None:
    assert share([(5, 10), (30, 30)]) == pytest.approx(1 - 35 / 40)
    assert share([(8, 8)]) == 0


def test_padding_is_what_masks_hide(conditions: Conditions) -> None:
    materials, pools = Materials.of(conditions), Pools()
    data = data_of(materials, "sums", 0, pools)
    masks = [part.attention_mask for parts in steps(data) for part in parts]
    hidden = sum(int((mask == 0).sum()) for mask in masks)
    assert share(alone(data)) == pytest.approx(hidden / sum(mask.numel() for mask in masks))
    real = sum(count for count, _ in scoring(materials, "sums", data, pools))
    ((task, items),) = pools.sample(("basic_arithmetic",), "embedded", "test", 64, 0)
    tokenizer = materials.tokenizer()
    prompts = [task.prompt(item, "generate").context for item in items]
    assert real == sum(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)


def test_every_suite_has_three_figures(conditions: Conditions) -> None:
    case = padding(Materials.of(conditions), ("sums",))
    titles = [finding.title for finding in case.findings]
    assert titles == [
        "% of tokens padded, sums, training",
        "% of tokens padded, sums, 5 seeds trained together",
        "% of tokens padded, sums, scoring",
    ]
    assert all(0 <= finding.value < 50 for finding in case.findings)
