from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from baselines import peft_types
from baselines.any_peft import AnyPeft
from quanta_bench.method import UsageError

QV = {"target_modules": ["q_proj", "v_proj"]}


def make(kind: str, **settings: Any) -> AnyPeft:
    method = AnyPeft.from_settings({"type": kind, "settings": settings})
    assert isinstance(method, AnyPeft)
    return method


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("VERRA", {}, "peft has no tuner 'VERRA'. Did you mean .*'VERA'"),
        ("vera", {"d_inital": 1}, "no setting 'd_inital'. Did you mean 'd_initial'"),
        ("vera", {"peft_type": "LORA"}, "VERA has no setting 'peft_type'"),
        ("boft", {"boft_block_size": 3, "boft_block_num": 2}, "peft's BOFT rejects its settings"),
        ("poly", {}, "peft's POLY cannot be used here: it needs the task"),
    ],
)  # fmt: skip
def test_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(kind, **settings)


@pytest.mark.parametrize("kind", peft_types.REFUSED)
def test_every_refusal_is_of_a_tuner_that_exists_and_says_why(kind: str) -> None:
    assert kind in {str(key.value) for key in PEFT_TYPE_TO_CONFIG_MAPPING}
    with pytest.raises(UsageError, match=peft_types.REFUSED[kind]):
        make(kind)


def test_exceptions_are_of_tuners_that_were_tried() -> None:
    for table in (peft_types.UNMERGEABLE, peft_types.INEXACT, peft_types.UNCACHEABLE):
        assert table.keys() <= peft_types.TESTED
    assert not peft_types.TESTED & peft_types.REFUSED.keys()


def test_a_value_that_only_the_model_refuses(tiny: Any) -> None:
    with pytest.raises(UsageError, match="'peft' does not fit this LlamaForCausalLM"):
        make("vera", r="eight", **QV).adapt(tiny(), seed=0)


def test_claims_are_the_tuner_s() -> None:
    assert not AnyPeft.mergeable
    vera = make("vera", **QV)
    assert vera.mergeable
    assert vera.exact_start
    assert vera.cacheable
    changed = make("vera", init_weights=False, **QV)
    assert "init_weights" in changed.exact_start.reason
    assert "cache" in make("prefix_tuning", num_virtual_tokens=3).cacheable.reason


def test_nothing_is_claimed_of_a_tuner_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peft_types, "TESTED", frozenset())
    vera = make("vera", **QV)
    for claim in (vera.mergeable, vera.exact_start, vera.cacheable):
        assert not claim
        assert "untested" in claim.reason


def test_a_tuner_s_own_seed_is_the_run_s_unless_given() -> None:
    assert make("vera", **QV).peft_config(7).projection_prng_key == 7
    assert make("vera", projection_prng_key=1, **QV).peft_config(7).projection_prng_key == 1


def test_random_projections_follow_the_seed(tiny: Any, logits: Any, train: Any) -> None:
    losses = [train(make("vera", **QV), steps=4, seed=seed).losses[-1] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_settings_are_not_written_into(tiny: Any) -> None:
    method = make("lora", **QV)
    before = method.config.model_dump()
    method.adapt(tiny(), seed=0)
    assert method.config.model_dump() == before


def test_quanta_is_found_like_any_other(tiny: Any) -> None:
    importlib.import_module("baselines.quanta")  # which registers it
    method = make("quanta", dims=[4, 4, 4], **QV)
    with torch.no_grad():
        assert method.trainable(method.adapt(tiny(), seed=0))
    assert not method.mergeable


@pytest.mark.parametrize("case", ["prefix_tuning", "cartridge"])
@torch.no_grad()
def test_a_prefix_generates_without_a_cache_as_with_one(case: str, tiny: Any, ids: Any) -> None:
    frozen = {"num_frozen_tokens": 0} if case == "cartridge" else {}
    model = make(case, num_virtual_tokens=3, **frozen).adapt(tiny(), seed=0)
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with_cache, without = (
        model.generate(input_ids=ids, use_cache=cached, **settings) for cached in (True, False)
    )
    assert torch.equal(with_cache, without)
