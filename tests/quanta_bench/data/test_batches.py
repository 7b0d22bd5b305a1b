"""Packed and flat batches say the same, and neither padding nor neighbours change a number."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_llama

from quanta_bench.data.batches import collate
from quanta_bench.data.bucketing import by_tokens, cheapest_cuts, shuffled
from quanta_bench.data.encoding import Encoded
from quanta_bench.evaluation import likelihood
from quanta_bench.task import Example

IDS = st.lists(st.integers(3, 60), min_size=1, max_size=6).map(tuple)


@st.composite
def items(draw, shared=True):
    candidates = tuple(draw(st.lists(IDS, min_size=1, max_size=4)))
    context = draw(IDS)
    contexts = tuple(context if shared else draw(IDS) for _ in candidates)
    number = draw(st.integers(0, 10**9))
    return Encoded(
        Example(str(number), str(number), {}),
        0,
        contexts,
        candidates,
        tuple(3 * len(ids) for ids in candidates),
        draw(st.integers(0, len(candidates) - 1)),
        0,
    )


@pytest.fixture(scope="module")
def model():
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}
    return tiny_llama(dtype=torch.float64, attn_implementation="sdpa", **small)


def reference(model, item):
    """Each candidate alone, with nothing clever: the sum of its tokens' log-probabilities."""
    sums = []
    for context, candidate in zip(item.contexts, item.candidates, strict=True):
        ids = torch.tensor([[*context, *candidate]])
        log_p = model(input_ids=ids).logits[0].log_softmax(-1)
        at = range(len(context) - 1, ids.shape[1] - 1)
        sums.append(sum(log_p[i, ids[0, i + 1]] for i in at))
    return torch.stack(sums)


@settings(max_examples=25, deadline=None)
@given(batch=st.lists(st.booleans().flatmap(items), min_size=1, max_size=4), packed=st.booleans())
def test_every_layout_equals_one_candidate_at_a_time(model, batch, packed):
    with torch.no_grad():
        found = likelihood.log_likelihoods(model, collate(batch, 0, packed=packed))
        expected = torch.cat([reference(model, item) for item in batch])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=10, deadline=None)
@given(batch=st.lists(items(), min_size=1, max_size=4))
def test_packed_and_flat_give_the_same_loss_and_gradients(model, batch):
    found = []
    for packed in (True, False):
        model.zero_grad()
        loss = likelihood.loss(model, collate(batch, 0, packed=packed), "candidates")
        loss.backward()
        found.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    model.zero_grad()
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-10, atol=1e-10)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        # The norms of transformers' LLaMA compute in float32 whatever the model's dtype.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def encoded(context, *candidates, gold=0):
    example = Example(str(context), str(context), {})
    contexts = (tuple(context),) * len(candidates)
    ids = tuple(tuple(candidate) for candidate in candidates)
    return Encoded(example, 0, contexts, ids, tuple(map(len, ids)), gold, 0)


def test_a_candidate_does_not_see_its_neighbours(model):
    """Changing one candidate leaves the other's likelihood as it was, to the bit."""
    one = collate([encoded([5, 6], [7, 8], [9, 10])], 0, packed=True)
    other = collate([encoded([5, 6], [7, 8], [11, 12])], 0, packed=True)
    with torch.no_grad():
        assert torch.equal(*(likelihood.log_likelihoods(model, b)[0] for b in (one, other)))


def test_language_modelling_on_the_whole_text_is_what_transformers_computes(model):
    item = encoded([5, 6, 7], [8, 9])
    batch = collate([item], 0, packed=False, context_loss=True)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    expected = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(
        likelihood.loss(model, batch, "answer+prompt"), expected.double(), rtol=1e-6, atol=1e-6
    )


def test_language_modelling_on_the_answer_masks_the_prompt(model):
    batch = collate([encoded([5, 6, 7], [8, 9])], 0, packed=False)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    labels = torch.tensor([[-100, -100, -100, 8, 9]])
    expected = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(
        likelihood.loss(model, batch, "answer"), expected.double(), rtol=1e-6, atol=1e-6
    )


def test_the_candidates_loss_is_cross_entropy_over_length_normalised_likelihoods(model):
    item = encoded([5, 6], [7, 8, 9], [10], [11, 12], gold=2)
    expected = torch.nn.functional.cross_entropy(
        (reference(model, item) / torch.tensor([3.0, 1.0, 2.0]))[None], torch.tensor([2])
    )
    found = likelihood.loss(model, collate([item], 0, packed=True), "candidates")
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_normalisers():
    batch = collate([encoded([5], [6, 7])], 0, packed=True)
    sums = torch.tensor([-6.0])
    assert likelihood.normalise(sums, batch, "sum").item() == -6
    assert likelihood.normalise(sums, batch, "token_mean").item() == -3
    assert likelihood.normalise(sums, batch, "byte_mean").item() == -3


def test_packing_feeds_each_context_once_and_no_last_token():
    item = encoded([5, 6, 7], [8, 9], [10, 11])
    assert collate([item], 0, packed=True).input_ids.tolist() == [[5, 6, 7, 8, 10]]
    assert collate([item], 0, packed=True).tokens == 5
    assert collate([item], 0, packed=False).tokens == 8
    shorter = replace(item, contexts=(item.contexts[0][:1],) * len(item.contexts))
    for packed in (True, False):
        alone = [collate([one], 0, packed=packed).tokens for one in (item, shorter)]
        assert collate([item, shorter], 0, packed=packed).tokens == sum(alone)


@settings(max_examples=30, deadline=None)
@given(batch=st.lists(items(), max_size=20), budget=st.integers(1, 60))
def test_token_budgets_hold_and_no_item_is_lost(batch, budget):
    batches = by_tokens(batch, budget, packed=True)
    assert sorted(id(i) for b in batches for i in b) == sorted(map(id, batch))
    for one in batches:
        assert len(one) == 1 or max(i.cost(True) for i in one) * len(one) <= budget


@settings(max_examples=50, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 3)), max_size=8),
    charge=st.integers(0, 40),
    budget=st.integers(1, 120),
    most=st.integers(1, 9),
    one_each=st.booleans(),
)
def test_no_other_cuts_between_batches_are_cheaper(blocks, charge, budget, most, one_each):
    """All ways to cut the row of widths, one after the other."""
    blocks = sorted(blocks, reverse=True)
    widths = [width for width, _ in blocks]
    rows = [1 if one_each else count for _, count in blocks]

    def expense(parts):
        shapes = [(max(widths[part]), sum(rows[part])) for part in parts]
        allowed = all(
            part.stop - part.start == 1 or (width * count <= budget and count <= most)
            for part, (width, count) in zip(parts, shapes, strict=True)
        )
        return sum(w * count + charge for w, count in shapes) if allowed else math.inf

    places = range(1, len(widths))
    ways = [cuts for n in range(len(widths)) for cuts in combinations(places, n)]
    least = min(
        (expense([slice(*ends) for ends in pairwise([0, *way, len(widths)])]) for way in ways),
        default=0,
    )
    options = {} if one_each else {"rows": rows}
    found = cheapest_cuts(widths, charge=charge, budget=budget, most=most, **options)
    assert [width for part in found for width in widths[part]] == widths
    assert expense(found) == least


@settings(max_examples=20, deadline=None)
@given(batch=st.lists(items(), min_size=1, max_size=40), size=st.integers(1, 8))
def test_training_order_is_a_permutation_that_the_seed_fixes(batch, size):
    order = shuffled(batch, size, seed=1, epoch=0, packed=True)
    assert sorted(id(i) for b in order for i in b) == sorted(map(id, batch))
    assert all(len(b) <= size for b in order)
    assert order == shuffled(batch, size, seed=1, epoch=0, packed=True)


def test_epochs_and_seeds_differ():
    batch = [encoded([n + 3], [4]) for n in range(40)]
    orders = [shuffled(batch, 4, seed=s, epoch=e, packed=True) for s in (0, 1) for e in (0, 1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
