"""Evaluators in a group: each item is scored by one process, as one process alone scores it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data

from quanta_bench.data.pools import Pools
from quanta_bench.evaluation import evaluators
from quanta_bench.evaluation.evaluators import BY_KIND, Context
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.spec import EvaluationSpec
from quanta_bench.utils.process_group import Group

SIZE = 3


class Member(Group):
    """A process of a group whose others are not there: it collects its own part."""

    def collect(self, own: Any) -> Any:
        return list(own)


@pytest.fixture(scope="module")
def context(tiny_model: Path) -> Context:
    base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
    spec = EvaluationSpec(tasks=("x",), max_length=256)
    cpu = torch.device("cpu")
    return Context(base.model, base.tokenizer, spec, True, True, cpu, lambda count: None)


@pytest.mark.parametrize("count", [8, 2])
@pytest.mark.parametrize("kind", ["choice", "perplexity", "generate"])
def test_the_shares_make_up_the_whole(
    kind: str, count: int, context: Context, tmp_path: Path
) -> None:
    """With two items one of three processes has none. The bound on answers is that of all."""
    data = write_data(tmp_path, test=count)
    if kind == "perplexity":
        (tmp_path / "lambada").mkdir()
        # The longer ones are read in several windows.
        lines = [json.dumps({"text": "word " * (20 * n + 3)}) for n in range(count)]
        (tmp_path / "lambada" / "test.jsonl").write_text("\n".join(lines))
        task, examples = _sample("running_text", count, f"local:{tmp_path}")
    else:
        task, examples = _sample(f"jsonl:{data}", count)
    score = BY_KIND[kind]  # type: ignore[index]
    whole = score(context, task, examples)
    parts = [
        score(replace(context, group=Member(rank, SIZE)), task, examples) for rank in range(SIZE)
    ]
    assert sum(map(len, parts)) == len(examples)
    for rank, part in enumerate(parts):
        for one, other in zip(part, whole[rank::SIZE], strict=True):
            assert one.example == other.example
            assert (one.cut, one.max_new_tokens) == (other.cut, other.max_new_tokens)
            assert one.detail.get("text") == other.detail.get("text")
            if "log_likelihoods" in one.detail:
                expected = pytest.approx(other.detail["log_likelihoods"], rel=1e-5)
                assert one.detail["log_likelihoods"] == expected


def _sample(task: str, count: int, source: str = "embedded") -> Any:
    ((found, examples),) = Pools().sample((task,), source, "test", count, 0)
    assert len(examples) == count
    return found, examples


def test_a_score_in_training_is_of_all_items(context: Context, tmp_path: Path) -> None:
    data = write_data(tmp_path)
    pair = _sample(f"jsonl:{data}", 8)
    score = evaluators.mean_score(context, [pair])
    assert 0 <= score <= 1

    class Knowing(Group):
        def collect(self, own: Any) -> Any:
            return evaluators.choose(context, *pair)

    assert evaluators.mean_score(replace(context, group=Knowing(1, SIZE)), [pair]) == score
