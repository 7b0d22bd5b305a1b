"""Log-likelihoods without logits: torch's own cross-entropy of them is the oracle."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from quanta_bench.models import chunked_log_softmax
from quanta_bench.models.chunked_log_softmax import token_log_likelihoods


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Several parts, the last one narrower, of vocabularies that a test can afford."""
    monkeypatch.setattr(chunked_log_softmax, "MIN_CHUNK", 7)
    monkeypatch.setattr(chunked_log_softmax, "LOGIT_BYTES", {"cpu": 1})


def made(tokens, width, entries, *, bias=True, dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    shapes = [(tokens, width), (entries, width), (entries,)]
    values = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    hidden, weight, other = (value.to(dtype) for value in values)
    targets = torch.randint(entries, (tokens,), generator=random)
    return hidden, weight, other if bias else None, targets


def plain(hidden, weight, bias, targets):
    logits = F.linear(hidden, weight, bias)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return -F.cross_entropy(logits.to(wide), targets, reduction="none")


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 9),
    entries=st.integers(1, 40),
    bias=st.booleans(),
    trained=st.lists(st.booleans(), min_size=3, max_size=3).filter(any),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_cross_entropy(tokens, entries, bias, trained, seed):
    *values, targets = made(tokens, 5, entries, bias=bias, seed=seed)
    upstream = torch.linspace(-1, 2, tokens, dtype=torch.float64)
    found = []
    for compute in (token_log_likelihoods, plain):
        leaves = [
            value if value is None else value.clone().requires_grad_(wanted)
            for value, wanted in zip(values, trained, strict=True)
        ]
        said = compute(*leaves, targets)
        if said.requires_grad:
            said.backward(upstream)
        found.append([said.detach(), *(leaf.grad for leaf in leaves if leaf is not None)])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "trained", [(True, False, False), (False, True, False), (True, True, True)]
)
def test_gradcheck(trained):
    *values, targets = made(4, 3, 17)
    leaves = [
        value.requires_grad_(bool(wanted)) for value, wanted in zip(values, trained, strict=True)
    ]
    assert torch.autograd.gradcheck(lambda *x: token_log_likelihoods(*x, targets), leaves)


def test_logits_of_any_size_and_of_minus_infinity():
    hidden, weight, bias, targets = made(3, 5, 30)
    bias[7:21] = float("-inf")  # two whole parts
    targets[:] = torch.tensor([0, 6, 29])
    for scale in (1e-8, 1.0, 1e5):
        found = token_log_likelihoods(hidden * scale, weight, bias, targets)
        assert found.isfinite().all()
        torch.testing.assert_close(found, plain(hidden * scale, weight, bias, targets))


@pytest.mark.parametrize("master", [torch.bfloat16, torch.float32])
def test_autocast_computes_the_logits_that_it_computes_elsewhere(master):
    """The same rounded logits; the softmax and what is added up are float32 in both."""
    *values, targets = made(6, 32, 200, bias=False, dtype=master)
    exact = []
    found = []
    for compute, kind in ((token_log_likelihoods, found), (plain, exact)):
        hidden, weight = (value.clone().requires_grad_() for value in values[:2])
        with torch.autocast("cpu", torch.bfloat16):
            said = compute(hidden, weight, None, targets)
        assert said.dtype is torch.float32
        said.sum().backward()
        assert hidden.grad.dtype is weight.grad.dtype is master
        kind += [said.detach(), hidden.grad.float(), weight.grad.float()]
    torch.testing.assert_close(found[0], exact[0], rtol=1e-6, atol=1e-5)
    for one, other in zip(found[1:], exact[1:], strict=True):
        assert (one - other).norm() < 0.01 * other.norm()


def test_no_token_is_likelier_than_certain():
    """A target's logit is rounded as those that it is compared with."""
    hidden, weight, _, _ = made(50, 64, 30, bias=False, dtype=torch.bfloat16)
    hidden = hidden * 8
    found = token_log_likelihoods(hidden, weight, None, (hidden @ weight.T).argmax(1))
    assert found.max() <= 0


def test_the_whole_vocabulary_is_never_held(monkeypatch):
    monkeypatch.setattr(chunked_log_softmax, "MIN_CHUNK", 64)
    monkeypatch.setattr(chunked_log_softmax, "LOGIT_BYTES", {"cpu": 4 * 100 * 128})
    hidden, weight, _, targets = made(100, 4, 2000, bias=False, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = token_log_likelihoods(hidden.requires_grad_(), weight, None, targets)
    assert found.grad_fn.name() == "_TokenLogLikelihoodsBackward"
    assert [tuple(tensor.shape) for tensor in kept] == [(100, 4)]
