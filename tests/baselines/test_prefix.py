"""Prefix tuning against a cache filled by hand, under padding, and in generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from baselines.prefix import Prefix
from quanta_bench.method import BenchError, UsageError
from quanta_bench.models.meta import count, meta_model

TOKENS = 5
SHORT = torch.tensor([[8, 1, 6]])
PAD = torch.zeros_like(SHORT)
LONG = torch.tensor([[5, 9, 2, 7, 11, 3]])


@pytest.fixture
def model(tiny: Any) -> Any:
    made = Prefix.from_settings({"num_virtual_tokens": TOKENS}).adapt(tiny(), seed=0).eval()
    # Far from the start, so that the prefix has its say.
    made.prompt_encoder["default"].embedding.weight.data.mul_(4)
    return made


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_prefix_is_keys_and_values_before_the_text(model: Any, tiny: Any) -> None:
    base = tiny()
    # A row for each token: layer by layer keys, then values, of 2 heads of 16.
    table = model.prompt_encoder["default"].embedding.weight.view(TOKENS, 2, 2, 2, 16)
    cache = DynamicCache(config=base.config)
    for layer in range(2):
        keys, values = table[:, layer].permute(1, 2, 0, 3)[:, None]
        cache.update(keys.clone(), values.clone(), layer)
    expected = base(input_ids=LONG, past_key_values=cache).logits
    close(model(input_ids=LONG).logits, expected)
    assert (expected - base(input_ids=LONG).logits).abs().max() > 0.1


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_a_prefix_that_starts_from_tokens_is_those_tokens(tiny: Any, training: bool) -> None:
    """The model answers as if the drawn tokens stood before the text."""
    base = tiny().train(training)
    settings = {"num_virtual_tokens": TOKENS, "start": "tokens"}
    state = torch.get_rng_state()
    made = Prefix.from_settings(settings).adapt(base, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert base.training is training
    ids = torch.randint(
        base.config.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(3)
    )
    if base.config.bos_token_id is not None:
        ids[0, 0] = base.config.bos_token_id
    expected = tiny().eval()(input_ids=torch.cat((ids, LONG), 1)).logits[:, TOKENS:]
    close(made.eval()(input_ids=LONG).logits, expected)
    other = Prefix.from_settings(settings).adapt(tiny(), seed=4)
    assert not torch.equal(
        *(one.prompt_encoder["default"].embedding.weight for one in (made, other))
    )


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_row_does_not_depend_on_its_padding(model: Any, side: str) -> None:
    row, where = ([PAD, SHORT], slice(3, 6)) if side == "left" else ([SHORT, PAD], slice(3))
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1] = 0
    mask[1, where] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    batch = model(
        input_ids=torch.cat((LONG, torch.cat(row, 1))),
        attention_mask=mask,
        # Counted from the left as they are by default, unless the padding is there.
        position_ids=positions if side == "left" else None,
    ).logits
    close(batch[:1], model(input_ids=LONG).logits)
    close(batch[1:, where], model(input_ids=SHORT).logits)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("fresh", [False, True])
@torch.no_grad()
def test_generates_what_it_scores(
    model: Any, tiny: Any, tmp_path: Path, use_cache: bool, fresh: bool
) -> None:
    if fresh:
        method = Prefix.from_settings({"num_virtual_tokens": TOKENS})
        method.save(model, tmp_path)
        model = method.load(tiny(), tmp_path)
    output = model.generate(
        input_ids=torch.cat((LONG, torch.cat((PAD, SHORT), 1))),
        attention_mask=torch.tensor([[1] * 6, [0] * 3 + [1] * 3]),
        max_new_tokens=5,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert len(output.logits) == 5
    found = torch.stack(output.logits, 1)
    for row, start in ((0, 0), (1, 3)):
        whole = model(input_ids=output.sequences[row : row + 1, start:]).logits
        close(found[row : row + 1], whole[:, -6:-1])


@pytest.mark.parametrize(
    ("model_name", "tokens", "trainable"),
    [
        ("llama-7b", 30, 7_864_320),
        ("llama-13b", 10, 10 * 40 * 2 * 5120),
        # Keys and values of grouped-query attention are narrower than the hidden vectors.
        ("llama3-8b", 30, 30 * 32 * 2 * 1024),
        ("smollm2-135m", 40, 460_800),
    ],
)
def test_counts(model_name: str, tokens: int, trainable: int) -> None:
    found = count(meta_model(model_name), Prefix.from_settings({"num_virtual_tokens": tokens}))
    assert found.trainable == found.added == trainable


def test_shares_of_table_3() -> None:
    seven = count(meta_model("llama-7b"), Prefix.from_settings(Prefix.rows["paper"].config))
    assert f"{100 * seven.of_total:.3f}" == "0.117"  # printed 0.11
    thirteen = count(meta_model("llama-13b"), Prefix.from_settings({"num_virtual_tokens": 10}))
    assert f"{100 * thirteen.of_total:.2f}" == "0.03"


def test_gradient_checkpointing_is_refused_in_words(tiny: Any) -> None:
    base = tiny()
    for layer in base.model.layers:
        layer.gradient_checkpointing = True
    with pytest.raises(UsageError, match="'prefix' does not work with gradient checkpointing"):
        Prefix.from_settings({}).adapt(base, seed=0)


def test_claims(model: Any) -> None:
    method = Prefix.from_settings({})
    for claim in (method.mergeable, method.exact_start, method.cacheable):
        assert not claim
        assert claim.reason
    with pytest.raises(BenchError, match="cannot be merged: it trains keys and values"):
        method.merge(model)


@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_bad_lengths_are_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="num_virtual_tokens"):
        Prefix.from_settings({"num_virtual_tokens": value})


def test_another_seed_is_another_start(tiny: Any) -> None:
    method = Prefix.from_settings({})
    a, b = (next(iter(method.trainable(method.adapt(tiny(), seed)).values())) for seed in (0, 1))
    assert not torch.equal(a, b)


def test_sizes_are_in_proportion() -> None:
    tokens = [size["num_virtual_tokens"] for size in Prefix.sizes(meta_model("smollm2-135m"))]
    assert tokens == sorted(set(tokens))
    assert 40 in tokens
