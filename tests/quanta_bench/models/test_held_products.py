"""Merged weights kept while weights stand still: as few products as the base, never a stale one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel
from weight_writes import WRITES

from quanta_bench.method import Method
from quanta_bench.models import held_products
from quanta_bench.models.held_products import still
from quanta_bench.plugins import METHODS
from quanta_bench.testing.training import IDS, base_model

QV: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}
MERGING: dict[str, dict[str, Any]] = {
    "lora": QV,
    "dora": QV,
    "krona": QV,
    "mora": QV,
    "loretta_rep": {**QV, "bottleneck": 4, "rank": 2},
    "quanta": {**QV, "dims": {"q_proj": (8, 8), ".*": None}},
    "qpa": {"inner": "lora", "settings": {"r": 2, **QV}},
    "peft": {"type": "VERA", "settings": {**QV, "r": 4}},
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "convolution", "einsum")


class Products(TorchDispatchMode):
    """Counts the operators that multiply matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in PRODUCTS
        return func(*args, **(kwargs or {}))


def adapted(name: str, settings: Any = None, dtype: torch.dtype = torch.float32) -> Any:
    """A method, and the tiny model adapted by it, with an update that is not zero."""
    method = METHODS.get(name).from_settings(MERGING[name] if settings is None else settings)
    model = method.adapt(base_model(dtype=dtype), 0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in method.trainable(model).values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return method, model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    scores: Tensor = model(input_ids=IDS).logits
    return scores


def close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


@contextmanager
def warm(method: Method[Any], model: nn.Module) -> Iterator[None]:
    """A block in which every layer has already seen more vectors than it is wide."""
    with still(method, model):
        for _ in range(8):
            logits(model)
        yield


def products(model: nn.Module) -> int:
    with Products() as counter:
        logits(model)
    return counter.count


def layer_of(model: nn.Module) -> Any:
    return next(module for module in model.modules() if hasattr(module, "base_layer"))


def test_every_mergeable_method_is_here() -> None:
    usable = {name for name in METHODS if METHODS.get(name).mergeable} - {"none", "full"}
    assert usable | {"peft"} == set(MERGING)


@pytest.mark.parametrize("name", MERGING)
def test_a_merging_method_multiplies_as_few_matrices_as_the_base(name: str) -> None:
    method, model = adapted(name)
    plain = products(base_model().eval())
    assert products(model) > plain
    expected = logits(model)
    with warm(method, model):
        assert products(model) == plain
        assert close(logits(model), expected)
    assert products(model) > plain


@pytest.mark.parametrize("write", ["data", "AdamW, fused"])
@pytest.mark.parametrize("name", sorted(MERGING.keys() - {"qpa"}))
def test_a_change_after_the_block_is_in_the_next_output_and_block(name: str, write: str) -> None:
    method, model = adapted(name)
    with warm(method, model):
        before = logits(model)
    WRITES[write](list(method.trainable(model).values()))
    after = logits(model)
    assert not close(after, before)
    with warm(method, model):
        assert close(logits(model), after)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_held_layer_is_its_merged_weight(kind: str, dtype: torch.dtype) -> None:
    if kind == "linear":
        method, model = adapted("lora", dtype=dtype)
    else:
        config = GPT2Config(n_layer=1, n_embd=24, n_head=2, n_inner=48, vocab_size=97)
        method = METHODS.get("lora").from_settings({"target_modules": ["c_attn"]})
        model = method.adapt(GPT2LMHeadModel(config).to(dtype), 0).eval()
    layer = layer_of(model)
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        delta = layer.get_delta_weight("default").to(dtype)
        weight = layer.base_layer.weight + delta
        x = torch.randn(3, weight.shape[kind == "linear"], dtype=dtype)
        expected = functional.linear(
            x, weight if kind == "linear" else weight.mT, layer.base_layer.bias
        )
        with warm(method, model):
            assert torch.allclose(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_a_bias_of_an_update_is_held_too() -> None:
    config = LoraConfig(target_modules=["0"], lora_bias=True)
    method = METHODS.get("lora").from_settings({})
    model = get_peft_model(nn.Sequential(nn.Linear(16, 16)), config).eval()
    x = torch.ones(16, 16)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1)
        expected = model(x)
        with still(method, model):
            for _ in range(2):
                model(x)
            with Products() as counter:
                found = model(x)
    assert counter.count == 1
    torch.testing.assert_close(found, expected)


def test_of_a_larger_model_as_many_layers_are_held_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, model = adapted("lora")
    plain, whole = products(base_model().eval()), products(model)
    weight = layer_of(model).base_layer.weight
    monkeypatch.setattr(held_products, "MOST_BYTES", weight.numel() * 4)
    expected = logits(model)
    with warm(method, model):
        assert plain < products(model) < whole
        assert close(logits(model), expected)
    monkeypatch.setattr(held_products, "MOST_BYTES", 0)
    with warm(method, model):
        assert products(model) == whole


def test_a_layer_that_sees_little_merges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    method, model = adapted("mora")
    made: list[Any] = []
    monkeypatch.setattr(held_products, "_merged", made.append)
    monkeypatch.setattr(held_products, "LEAST", 1)
    with still(method, model):
        logits(model)
    assert made == []
    with warm(method, model):
        pass
    assert len(made) == 4  # once a layer


@pytest.mark.parametrize(("fewer", "held"), [(1, False), (0, True)])
def test_a_pass_of_as_many_vectors_as_a_layer_is_wide_is_held_at_once(
    fewer: int, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_products, "LEAST", 1)
    method, model = adapted("lora")
    layer = layer_of(model)
    width = layer.in_features
    with still(method, model), torch.no_grad(), Products() as counter:
        layer(torch.ones(width - fewer, width))
    # W x, A x and B (A x); or B A for the merged weight, and W' x.
    assert counter.count == (2 if held else 3)


def test_nothing_is_merged_while_a_graph_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a merged weight is finite is read from the device, which a graph cannot hold."""
    method, model = adapted("lora")
    whole = products(model)
    made: list[Any] = []
    monkeypatch.setattr(held_products, "_merged", made.append)
    with still(method, model):
        monkeypatch.setattr(held_products, "may_wait", lambda device: False)
        assert products(model) == whole
        assert made == []
        monkeypatch.setattr(held_products, "may_wait", lambda device: True)
        logits(model)
    assert len(made) == 4


@pytest.mark.parametrize("name", ["lora", "dora", "krona"])
def test_what_a_merged_weight_does_not_give_is_computed_as_outside(name: str) -> None:
    method, model = adapted(name)
    plain = copy.deepcopy(model)
    with warm(method, model):
        for one in (model, plain):  # gradients
            one(input_ids=IDS, labels=IDS).loss.backward()
        for value, other in zip(model.parameters(), plain.parameters(), strict=True):
            assert (value.grad is None) == (other.grad is None)
            assert value.grad is None or torch.equal(value.grad, other.grad)
        with model.disable_adapter(), plain.disable_adapter():
            assert torch.equal(logits(model), logits(plain))
        with torch.autocast("cpu", torch.bfloat16):  # would round a merged weight
            assert torch.equal(logits(model), logits(plain))
        model.merge_adapter()
        model.unmerge_adapter()
    assert close(logits(model), logits(plain))


def test_adapters_may_be_switched_in_a_block() -> None:
    method, model = adapted("dora")
    model.add_adapter("second", model.peft_config["default"])
    model.eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".second." in name:
                value.add_(0.1)
    first = logits(model)
    model.set_adapter("second")
    second = logits(model)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model)
    with warm(method, model):
        assert close(logits(model), both)
        for adapter, expected in (("second", second), ("default", first)):
            model.set_adapter(adapter)
            assert close(logits(model), expected)


def test_dropout_is_in_no_merged_weight() -> None:
    method, model = adapted("lora", {**QV, "dropout": 0.5})
    plain = copy.deepcopy(model)
    with warm(method, model):
        for one in (model, plain):
            one.train()
        torch.manual_seed(0)
        dropped = logits(model)
        torch.manual_seed(0)
        assert torch.equal(dropped, logits(plain))


def test_a_hook_on_the_base_layer_still_runs() -> None:
    method, model = adapted("lora")
    seen: list[Any] = []
    with warm(method, model):
        layer_of(model).base_layer.register_forward_hook(lambda *args: seen.append(1))
        logits(model)
    assert seen == [1]


def test_an_update_that_is_not_finite_is_not_hidden() -> None:
    method, model = adapted("krona")
    with torch.no_grad():
        for value in method.trainable(model).values():
            value.fill_(torch.nan)
    assert logits(model).isnan().all()
    with warm(method, model):
        assert logits(model).isnan().all()


def test_blocks_nest_and_a_failed_one_leaves_nothing() -> None:
    method, model = adapted("lora")
    plain = products(base_model().eval())

    def interrupted() -> None:
        with warm(method, model):
            with still(method, model):
                assert products(model) == plain
            assert products(model) == plain
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert products(model) > plain
    assert not any("forward" in vars(module) for module in model.modules())


def test_copies_made_in_a_block_are_outside_of_it() -> None:
    method, model = adapted("lora")
    with warm(method, model):
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(layer_of(model)))]
    expected = logits(model)
    with torch.no_grad():
        for copied in copies:
            layer = layer_of(copied)
            layer.lora_B["default"].weight.zero_()
            x = torch.randn(100, 64)
            for _ in range(3):
                assert torch.equal(layer(x), layer.base_layer(x))
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("name", ["lora", "loretta_rep"])
def test_generated_answers_are_those_outside(name: str) -> None:
    method, model = adapted(name)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(input_ids=IDS, **options)
    with warm(method, model):
        assert torch.equal(model.generate(input_ids=IDS, **options), expected)
