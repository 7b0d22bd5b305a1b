"""Ties count as chance, against brute force over all ways to break them; NaN is an error."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from quanta_bench.data.batches import collate
from quanta_bench.data.encoding import Encoded
from quanta_bench.evaluation import decisions, evaluators, likelihood, stats, summary
from quanta_bench.evaluation.classification import judge_outputs
from quanta_bench.evaluation.decisions import NonFiniteError
from quanta_bench.spec import TrainingSpec
from quanta_bench.task import Example, Task
from quanta_bench.training.objectives import Continuations, Labels
from tasks.glue import MRPC, RTE, STSB
from tasks.piqa import PIQA

SCORES = st.lists(st.sampled_from([-2.0, -1.5, -1.0]), min_size=1, max_size=5)
BAD = [math.nan, math.inf, -math.inf]


def example(number: int, gold: int = 0) -> Example:
    fields = {"sentences": ("a", "b"), "score": float(gold)}
    return Example(f"item/{number}", f"group{number}", fields, gold)


@given(SCORES, st.data())
def test_credit_is_the_expected_accuracy_of_breaking_ties_at_random(
    scores: list[float], data: st.DataObject
) -> None:
    gold = data.draw(st.integers(0, len(scores) - 1))
    best = [index for index, score in enumerate(scores) if score == max(scores)]
    assert decisions.winners(scores) == tuple(best)
    assert decisions.credit(scores, gold) == pytest.approx(np.mean([one == gold for one in best]))
    answer = decisions.expected(decisions.judge(PIQA(), example(0, gold), scores))
    assert answer.scores == pytest.approx({"accuracy": decisions.credit(scores, gold)})
    assert answer.prediction == (best[0] if len(best) == 1 else None)


@given(SCORES, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    scores: list[float], source: random.Random
) -> None:
    order = source.sample(range(len(scores)), len(scores))
    for gold in range(len(scores)):
        moved = decisions.credit([scores[n] for n in order], order.index(gold))
        assert moved == decisions.credit(scores, gold)


def test_scores_that_differ_in_float32_do_not_tie() -> None:
    one = float(np.float32(-1.7))
    following = float(np.nextafter(np.float32(one), np.float32(0)))
    assert decisions.winners([one, following]) == (1,)
    assert decisions.winners([one, one + 1e-12]) == (0, 1)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_scores_that_are_not_finite_are_named(bad: float, place: int) -> None:
    values = [-1.0, -2.0, -3.0]
    values[place] = bad
    with pytest.raises(NonFiniteError, match=rf"piqa, item item/7: score {place} is {bad}"):
        decisions.check_finite(values, "score", example(7), "piqa")
    with pytest.raises(NonFiniteError, match="rte, item item/7: output"):
        judge_outputs(RTE(), example(7), values[:2] if place < 2 else values)
    with pytest.raises(NonFiniteError, match="stsb, item item/7: output 0"):
        judge_outputs(STSB(), example(7), [bad])


def test_tied_classes_share_an_item() -> None:
    answers = judge_outputs(RTE(), example(0, 1), [0.2, 0.2])
    assert [one.prediction for one in answers] == [0, 1]
    assert decisions.expected(answers).scores == {"accuracy": 0.5}


# --- metrics of all answers -----------------------------------------------------------------------

ITEMS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([(0,), (1,), (0, 1)])), min_size=1, max_size=7
)


@given(ITEMS)
def test_f1_is_that_of_the_expected_confusion_matrix(
    items: list[tuple[int, tuple[int, ...]]],
) -> None:
    """Brute force: all ways to break the ties, each as likely, in one long list."""
    task = MRPC()
    answers = [
        tuple(task.judge_choice(example(n, gold), choice) for choice in best)
        for n, (gold, best) in enumerate(items)
    ]
    ways = list(itertools.product(*(best for _, best in items)))
    gold = [one for _ in ways for one, _ in items]
    chosen = [choice for way in ways for choice in way]
    found = decisions.aggregate(task, answers)
    assert found["f1"] == pytest.approx(f1_score(gold, chosen, zero_division=0.0))
    assert found["accuracy"] == pytest.approx(np.mean(np.equal(gold, chosen)))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_means_need_no_copies(sizes: list[int]) -> None:
    task = PIQA()
    answers = [
        tuple(task.judge_choice(example(n), choice) for choice in range(size))
        for n, size in enumerate(sizes)
    ]
    mean = np.mean([1 / size for size in sizes])
    assert decisions.aggregate(task, answers) == pytest.approx({"accuracy": mean})

    class Repeats(PIQA):
        def aggregate(self, answers: Sequence[Any]) -> dict[str, float]:
            return super().aggregate(answers)

    assert decisions.aggregate(Repeats(), answers) == pytest.approx({"accuracy": mean})


# --- standard errors ------------------------------------------------------------------------------


def judged(task: Task, number: int, scores: Sequence[float], gold: int) -> evaluators.Judged:
    item = example(number, gold)
    return evaluators.Judged(item, decisions.judge(task, item, scores), {"outputs": list(scores)})


@pytest.mark.parametrize("task", [RTE(), MRPC()], ids=["accuracy", "f1"])
def test_the_standard_error_is_the_spread_over_samples_with_ties(task: Task) -> None:
    """Draw items of which a third are tied, again and again."""
    source = random.Random(0)

    def sample() -> list[evaluators.Judged]:
        drawn = []
        for number in range(60):
            gold = source.randrange(2)
            right = [float(gold == 0), float(gold == 1)]
            scores = source.choice([[0.5, 0.5], right, right, right[::-1], [0.5, 0.5], right])
            drawn.append(judged(task, number, scores, gold))
        return drawn

    samples = [sample() for _ in range(400)]
    metrics = [
        decisions.aggregate(task, [item.answers for item in some])[task.metric] for some in samples
    ]
    errors = [
        summary.summarise(task, "head", some, 0.0, {}).standard_error for some in samples[:20]
    ]
    assert np.mean(errors) == pytest.approx(np.std(metrics), rel=0.15)


def test_a_model_that_ties_everywhere_scores_chance_with_certainty() -> None:
    task = RTE()
    items = [judged(task, n, [1.0, 1.0], gold=0) for n in range(10)]
    result = summary.summarise(task, "head", items, 0.0, {})
    assert (result.metrics["accuracy"], result.standard_error, result.tied) == (0.5, 0.0, 10)
    assert result.chance == 0.5
    mixed = [*items[:5], *(judged(task, 10 + n, [1.0, 0.0], gold=0) for n in range(5))]
    result = summary.summarise(task, "head", mixed, 0.0, {})
    # Five times 1/2 and five times 1.
    groups = [item.example.group for item in mixed]
    error = stats.clustered_standard_error([0.5] * 5 + [1.0] * 5, groups)
    assert (result.metrics["accuracy"], result.tied) == (0.75, 5)
    assert result.standard_error == pytest.approx(error)


@pytest.mark.parametrize("bad", BAD)
def test_a_metric_or_a_score_that_is_not_finite_is_refused(bad: float) -> None:
    class Odd(RTE):
        def aggregate(self, answers: Sequence[Any]) -> dict[str, float]:
            return {"accuracy": 0.5, "odd": bad}

    items = [judged(Odd(), n, [1.0, 0.0], gold=0) for n in range(3)]
    with pytest.raises(NonFiniteError, match=f"rte: the metric odd is {bad}"):
        summary.summarise(Odd(), "head", items, 0.0, {})
    odd = evaluators.Judged(example(1), (decisions.Answer(0, 0, {"accuracy": bad}),), {})
    with pytest.raises(NonFiniteError, match=f"rte, item item/1: the score accuracy is {bad}"):
        summary.line("rte", odd)


# --- validation -----------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """A language model with one logit a token, the same at every position."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return type("Output", (), {"logits": self.logits.expand(*input_ids.shape, -1)})


def batch_of(*lengths: int, gold: int) -> Any:
    tokens = itertools.count(3)
    candidates = tuple(tuple(next(tokens) for _ in range(length)) for length in lengths)
    sizes = tuple(map(len, candidates))
    item = Encoded(example(0), 0, ((1, 2),) * len(lengths), candidates, sizes, gold, 0)
    return collate([item], 0, packed=False)


@pytest.mark.parametrize("gold", [0, 1, 2])
def test_a_uniform_model_ties_candidates_of_any_length(gold: int) -> None:
    """In float32 the sums of 3, 7 and 11 equal terms round to different means."""
    model = Constant(torch.full((30,), 0.3))
    batch = batch_of(3, 7, 11, gold=gold)
    means = likelihood.normalise(likelihood.log_likelihoods(model, batch), batch, "token_mean")
    assert decisions.winners(means.tolist()) == (0, 1, 2)
    objective = Continuations(TrainingSpec(method="lora", tasks=("piqa",)))
    (judgement,) = objective.judge(model, batch)
    assert judgement.score == pytest.approx(1 / 3)
    assert judgement.loss == pytest.approx(math.log(3))


@pytest.mark.parametrize("bad", BAD[:2])
def test_validation_refuses_outputs_that_are_not_finite(bad: float) -> None:
    logits = torch.zeros(30)
    logits[4] = bad
    objective = Continuations(TrainingSpec(method="lora", tasks=("piqa",)))
    with pytest.raises(NonFiniteError, match="piqa, item item/0: the mean log-likelihood of"):
        objective.judge(Constant(logits), batch_of(2, 2, gold=0))


def test_validation_by_a_tasks_own_metric_counts_ties_as_scoring_does() -> None:
    outputs = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    golds = [1, 1, 0, 0]
    objective = Labels(TrainingSpec(method="lora", tasks=("mrpc",), protocol="head"))
    answers = [
        judge_outputs(objective.task, example(n, gold), values)
        for n, (gold, values) in enumerate(zip(golds, outputs.tolist(), strict=True))
    ]

    class Classifier(torch.nn.Module):
        def forward(self, **_: Any) -> Any:
            return type("Output", (), {"logits": outputs})

    from quanta_bench.data.texts import EncodedTexts

    items = [EncodedTexts(example(n, gold), 0, (1,), None, gold, 0) for n, gold in enumerate(golds)]
    found = objective.judge(Classifier(), objective.collate(items, 0, packed=False))
    assert [one.score for one in found] == [0, 0, 0, 0]  # F1 is no mean over items
    # True positives 1.5, said to be such 2, such 2: F1 is 3 / 4.
    assert objective.metric(found) == pytest.approx(0.75)
    assert decisions.aggregate(objective.task, answers)["f1"] == pytest.approx(0.75)
