"""Which modules are adapted, what trains, and in which dtype."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from tests.baselines.conformity.tuners import (
    IDS,
    Tuner,
    adapted,
    add_perturbed,
    every_tuner,
    llama,
    logits,
    perturb,
)


def layers(model: nn.Module) -> list[str]:
    return [
        name.removeprefix("base_model.model.model.layers.")
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]


def loss(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, labels=IDS).loss


@every_tuner
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"target_modules": ["q_proj"]}, ["0.self_attn.q_proj", "1.self_attn.q_proj"]),
        ({"target_modules": r".*\.1\..*q_proj"}, ["1.self_attn.q_proj"]),
        ({"target_modules": ["layers.0.self_attn.q_proj"]}, ["0.self_attn.q_proj"]),
        (
            {"target_modules": ["q_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]},
            ["1.self_attn.q_proj"],
        ),
        (
            {"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"},
            ["0.self_attn.q_proj"],
        ),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, ["1.self_attn.q_proj"]),
        (
            {"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": "layers"},
            ["0.self_attn.q_proj"],
        ),
        ({"target_modules": None}, ["0.self_attn.q_proj", "0.self_attn.v_proj",
                                    "1.self_attn.q_proj", "1.self_attn.v_proj"]),
    ],
)  # fmt: skip
def test_target_modules(tuner: Tuner, settings: dict[str, object], expected: list[str]) -> None:
    assert layers(get_peft_model(llama(), tuner(**settings))) == expected


@every_tuner
def test_all_linear_layers(tuner: Tuner) -> None:
    options = {"side": 1} if "side" in tuner.settings else {}
    if "dims" in tuner.settings:
        options = {"dims": (4, 4, 2), "rectangular": "pad"}
    model = get_peft_model(llama(), tuner(target_modules="all-linear", **options))
    assert len(layers(model)) == 14
    assert not isinstance(model.get_base_model().lm_head, BaseTunerLayer)


@every_tuner
def test_unknown_targets_are_refused(tuner: Tuner) -> None:
    with pytest.raises(ValueError, match="not found in the base model"):
        get_peft_model(llama(), tuner(target_modules=["absent"]))


@every_tuner
def test_only_the_adapter_trains(tuner: Tuner) -> None:
    model = get_peft_model(llama(), tuner(modules_to_save=["lm_head"])).train()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    trains = {name for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(5):
        value = loss(model)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(value.detach()))
    moved = {n for n, value in model.named_parameters() if not torch.equal(value, before[n])}
    assert moved == trains
    assert losses[-1] < losses[0]
    assert sum("modules_to_save" in name for name in trains) == 1


@every_tuner
def test_switching_and_deleting(tuner: Tuner) -> None:
    model = adapted(tuner)
    first = logits(model)
    count = sum(value.numel() for value in model.state_dict().values())
    add_perturbed(model, tuner, "0", seed=2)
    model.set_adapter("0")
    second = logits(model)
    assert (first - second).abs().max() > 1e-3
    trains = [n for n, value in model.named_parameters() if value.requires_grad]
    assert trains
    assert not any(".default" in name for name in trains)
    model.set_adapter("default")
    torch.testing.assert_close(logits(model), first)
    model.delete_adapter("0")
    assert list(model.peft_config) == ["default"]
    assert count == sum(value.numel() for value in model.state_dict().values())
    torch.testing.assert_close(logits(model), first)
    with pytest.raises(ValueError, match="absent"):
        model.delete_adapter("absent")
    with pytest.raises(ValueError, match="already exists"):
        model.add_adapter("default", tuner())


@every_tuner
def test_deleting_the_active_adapter_activates_another(tuner: Tuner) -> None:
    model = adapted(tuner)
    add_perturbed(model, tuner, "second", seed=2)
    model.set_adapter("second")
    second = logits(model)
    model.set_adapter("default")
    with pytest.warns(UserWarning, match="Setting active adapter to second"):
        model.delete_adapter("default")
    torch.testing.assert_close(logits(model), second)


@every_tuner
def test_adapters_on_different_layers(tuner: Tuner) -> None:
    model = adapted(tuner, layers_to_transform=[0])
    first = logits(model)
    add_perturbed(model, tuner, "second", seed=2, layers_to_transform=[1])
    torch.testing.assert_close(logits(model), first)
    model.set_adapter("second")
    assert (logits(model) - first).abs().max() > 1e-4


@every_tuner
def test_gradient_checkpointing(tuner: Tuner) -> None:
    gradients = []
    for checkpointing in (False, True):
        base = llama()
        if checkpointing:
            enable = getattr(base, "activation_checkpointing_enable", None)
            (enable or base.gradient_checkpointing_enable)({"use_reentrant": False})
        model = adapted(tuner, base).train()
        loss(model).backward()
        gradients.append({n: v.grad for n, v in model.named_parameters() if v.requires_grad})
    assert all(value is not None for value in gradients[0].values())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


@every_tuner
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_dtype_of_adapters(tuner: Tuner, dtype: torch.dtype, tmp_path: object) -> None:
    for autocast, expected in ((True, torch.float32), (False, dtype)):
        model = get_peft_model(llama(dtype), tuner(), autocast_adapter_dtype=autocast)
        model.add_adapter("second", tuner(), autocast_adapter_dtype=autocast)
        own = [v for n, v in model.named_parameters() if ".default" in n or ".second" in n]
        perturb(own)
        assert {value.dtype for value in own} == {expected}
        assert logits(model.eval()).dtype == dtype
        model.save_pretrained(str(tmp_path))
        loaded = PeftModel.from_pretrained(
            llama(dtype), str(tmp_path), autocast_adapter_dtype=autocast
        )
        own = [v for n, v in loaded.named_parameters() if ".default" in n]
        assert {value.dtype for value in own} == {expected}
        torch.testing.assert_close(logits(loaded.eval()), logits(model), rtol=0.02, atol=0.02)


@every_tuner
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_cast_of_the_whole_model(tuner: Tuner, dtype: torch.dtype) -> None:
    model = adapted(tuner)
    expected = logits(model)
    model = model.to(dtype)
    assert {value.dtype for value in model.parameters()} == {dtype}
    torch.testing.assert_close(logits(model).float(), expected, rtol=0.1, atol=0.3)
    assert logits(model).dtype == dtype
    model.train()
    loss(model).backward()
    back = model.eval().to(torch.float32)
    torch.testing.assert_close(logits(back), expected, rtol=0.1, atol=0.3)


@every_tuner
def test_autocast(tuner: Tuner) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted(tuner, llama(dtype)).train()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model)
        value.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
