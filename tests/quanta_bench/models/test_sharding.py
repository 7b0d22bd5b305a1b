"""Frozen weights spread over two processes: half of them in each, and the outputs of one process.

The processes are forked, because importing torch anew would take seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data
from tiny_models import tiny_gpt2, tiny_llama
from torch import nn

from quanta_bench.data.pools import Pools
from quanta_bench.evaluation.evaluators import Context, answer
from quanta_bench.models import capabilities
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.models.sharding import blocks, in_step, is_sharded, shard
from quanta_bench.plugins import build_method
from quanta_bench.spec import EvaluationSpec
from quanta_bench.utils.process_group import ALONE, joined

LORA = {"r": 2, "target_modules": ("q_proj", "v_proj")}
IDS = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def adapted(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """LoRA in float32 on a frozen base; its second factor is not zero, so that all of it trains."""
    method = build_method("lora", LORA)
    model = method.adapt(tiny_llama().to(dtype), 0)
    trained = method.trainable(model)
    with torch.no_grad():
        for name, value in trained.items():
            if "lora_B" in name:
                value.fill_(0.01)
    return model, trained


def gradients(model: Any, trained: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=model.dtype is torch.bfloat16):
        model(input_ids=IDS, labels=IDS).loss.backward()
    return {name: value.grad for name, value in trained.items() if value.grad is not None}


def in_two_processes(work: Callable[..., Any], folder: Path) -> list[Any]:
    """What a function returns in each of two processes of a group."""
    context = torch.multiprocessing.get_context("fork")
    processes = [context.Process(target=_call, args=(work, rank, str(folder))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _call(work: Callable[..., Any], rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    group = joined(rank, 2, Path(folder) / "meeting")
    torch.save(work(group), f"{folder}/{rank}.pt")


def work_on_a_pass(group: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        model, trained = adapted(dtype)
        shard(model, trained.values(), group)
        held = sum(
            value.to_local().numel() for value in model.parameters() if hasattr(value, "to_local")
        )
        found[str(dtype)] = gradients(model.train(), trained)
        found["held"], found["sharded"] = held, is_sharded(model)
    return found


def test_a_sharded_model_has_half_of_its_blocks_and_the_same_gradients(tmp_path: Path) -> None:
    found = in_two_processes(work_on_a_pass, tmp_path)
    model, trained = adapted()
    own = {id(value) for value in trained.values()}
    frozen = sum(
        value.numel()
        for block in blocks(model)
        for value in block.parameters()
        if id(value) not in own
    )
    for one in found:
        assert one["sharded"]
        assert one["held"] * 2 == frozen
        # A bfloat16 base under adapters in float32, as on a GPU.
        for dtype in (torch.float32, torch.bfloat16):
            expected = gradients(*adapted(dtype))
            assert one[str(dtype)].keys() == expected.keys()
            for name, value in expected.items():
                assert torch.allclose(one[str(dtype)][name], value, rtol=1e-5, atol=1e-8), name
    assert not is_sharded(model)


def on_4_bits() -> tuple[nn.Module, dict[str, nn.Parameter]]:
    """The same adapters on layers of 4 bits, stored as numbers that can be spread."""
    bnb = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model, trained = adapted()
    for layer in model.modules():
        base = getattr(layer, "base_layer", None)
        if isinstance(base, nn.Linear):
            packed = bnb.nn.Linear4bit(
                base.in_features,
                base.out_features,
                bias=False,
                compute_dtype=torch.float32,
                quant_type="nf4",
                quant_storage=torch.float32,
            )
            packed.weight = bnb.nn.Params4bit(
                base.weight.detach(),
                requires_grad=False,
                quant_type="nf4",
                quant_storage=torch.float32,
                module=packed,
            )
            packed.support_avx512bf16_for_cpu = False
            layer.base_layer = packed.to("cpu")
    return model, trained


def work_on_4_bits(group: Any) -> dict[str, Any]:
    model, trained = on_4_bits()
    shard(model, trained.values(), group)
    weight = next(value for name, value in model.named_parameters() if "base_layer" in name)
    return {"bytes": weight.to_local().nbytes, **gradients(model.train(), trained)}


def test_weights_of_4_bits_are_spread_too(tmp_path: Path) -> None:
    """q_proj has 64 times 64 weights, 2,048 bytes, of which each process holds half."""
    expected = gradients(*on_4_bits())
    for found in in_two_processes(work_on_4_bits, tmp_path):
        assert found.pop("bytes") == 1024
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-8), name


def work_in_step(group: Any) -> list[float]:
    model, trained = adapted()
    shard(model.eval(), trained.values(), group)
    outputs = []
    with torch.no_grad(), in_step(model, group):
        for row in IDS.repeat(2, 1)[: 3 * group.rank]:
            outputs.append(float(model(input_ids=row[None]).logits.sum()))
    # Passes that all make go on as before.
    with torch.no_grad():
        outputs.append(float(model(input_ids=IDS).logits.sum()))
    return outputs


def test_processes_may_make_different_numbers_of_passes(tmp_path: Path) -> None:
    """The first makes none of its own, the second three."""
    none, three = in_two_processes(work_in_step, tmp_path)
    model, _ = adapted()
    with torch.no_grad():
        each = [float(model.eval()(input_ids=row[None]).logits.sum()) for row in IDS]
        both = float(model(input_ids=IDS).logits.sum())
    assert none == pytest.approx([both], rel=1e-5)
    assert three == pytest.approx([each[0], each[1], each[0], both], rel=1e-5)


def test_blocks_are_the_layers_under_any_name() -> None:
    assert [type(block).__name__ for block in blocks(tiny_gpt2())] == ["GPT2Block"] * 2
    model, _ = adapted()
    assert [type(block).__name__ for block in blocks(model)] == ["LlamaDecoderLayer"] * 2


def test_a_model_that_is_not_sharded_passes_as_it_likes() -> None:
    model, _ = adapted()
    with in_step(model, ALONE):
        model(input_ids=IDS)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("count", [1, 5])
def test_answers_are_generated_by_a_sharded_model(
    count: int, tiny_model: Path, tmp_path: Path
) -> None:
    """By the base model inside the adapted one; of a single item, one process has none."""
    base = load_model(ModelRef(".", f"local:{tiny_model}"), torch.float32)
    method = build_method("lora", LORA)
    model = method.adapt(base.model, 0).eval()
    data = write_data(tmp_path, test=count)
    ((task, examples),) = Pools().sample((f"jsonl:{data}",), "embedded", "test", count, 0)
    spec = EvaluationSpec(tasks=("x",), max_length=256)
    cpu = torch.device("cpu")
    context = Context(model, base.tokenizer, spec, True, True, cpu, lambda count: None)
    expected = [item.detail["text"] for item in answer(context, task, examples)]

    def work(group: Any) -> list[str]:
        capabilities._decoding.clear()  # how to decode is found out again
        shard(model, method.trainable(model).values(), group)
        judged = answer(replace(context, group=group), task, examples)
        return [item.detail["text"] for item in judged]

    assert in_two_processes(work, tmp_path) == [expected, expected]
