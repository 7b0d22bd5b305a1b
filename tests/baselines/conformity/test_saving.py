"""An adapter that is saved is the adapter that is loaded: by every way, under any name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from tests.baselines.conformity.tuners import (
    TUNERS,
    Tuner,
    adapted,
    add_perturbed,
    every_tuner,
    gpt2,
    llama,
    logits,
    perturb,
)

# `peft` fears for names that are a part of a tuner's prefix.
pytestmark = pytest.mark.filterwarnings("ignore:Adapter name '.*' should not be contained")

FILE = "adapter_model.safetensors"
OLD_FILES = Path(__file__).resolve().parents[1] / "adapters_0_1"
OURS = {name: tuner for name, tuner in TUNERS.items() if name != "lora"}
every_own_tuner = pytest.mark.parametrize("tuner", OURS.values(), ids=OURS.keys())

# Equal to a tensor's name, to a layer's, to a container's, or a part of one.
NAMES = ["default", "0", "1", "a", "b", "up", "down", "cores", "weight", "quantum", "layers"]
NAMES += ["q_proj", "model", "parts", "other_default", "efaul"]


@pytest.fixture
def saved(tuner: Tuner, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """The folder of an adapter, and the logits of the model that it comes from."""
    base = llama()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = adapted(tuner, base)
    model.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter", logits(model)


def assert_equal(model: nn.Module, expected: torch.Tensor) -> None:
    torch.testing.assert_close(logits(model.eval()), expected, rtol=1e-4, atol=1e-5)


@every_tuner
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_peft_loads_under_any_name(saved: Any, low_cpu_mem_usage: bool) -> None:
    folder, expected = saved
    assert (expected - logits(llama())).abs().max() > 1e-3
    model = PeftModel.from_pretrained(
        llama(), folder, adapter_name="first", low_cpu_mem_usage=low_cpu_mem_usage
    )
    assert_equal(model, expected)
    for name in NAMES:
        report = model.load_adapter(folder, name, low_cpu_mem_usage=low_cpu_mem_usage)
        assert report.unexpected_keys == []
        if name == "other_default":  # peft finds shorter names in the keys of other adapters too
            assert report.missing_keys == []
    assert not any(value.is_meta for value in model.state_dict().values())
    for name in NAMES:
        model.set_adapter(name)
        assert_equal(model, expected)


@every_tuner
def test_transformers_loads_under_any_name(saved: Any) -> None:
    folder, expected = saved
    assert_equal(AutoModelForCausalLM.from_pretrained(folder), expected)
    for name in ("default", "other", "0", "a", "up", "parts"):
        model = llama()
        report = model.load_adapter(str(folder), adapter_name=name)
        assert not report.unexpected_keys
        if name == "other":  # transformers finds shorter names in the keys of the base model too
            assert not report.missing_keys
        assert_equal(model, expected)


@every_tuner
@pytest.mark.parametrize("names", [("0", "1"), ("a", "b"), ("up", "down"), ("q_proj", "v_proj")])
def test_each_of_several_adapters_is_saved_whole(
    tuner: Tuner, names: tuple[str, str], tmp_path: Path
) -> None:
    if tuner is TUNERS["lora"] and names in (("0", "1"), ("q_proj", "v_proj")):
        pytest.skip("peft drops the tensors of layers that are called like another adapter")
    model = adapted(tuner, adapter_name=names[0])
    add_perturbed(model, tuner, names[1], seed=2)
    model.save_pretrained(str(tmp_path))
    for name in names:
        model.set_adapter(name)
        loaded = PeftModel.from_pretrained(llama(), tmp_path / name, adapter_name="x")
        assert_equal(loaded, logits(model))


@every_tuner
def test_only_the_selected_adapter_is_saved(tuner: Tuner, tmp_path: Path) -> None:
    model = adapted(tuner)
    count = len(get_peft_model_state_dict(model))
    for name in ("default2", "other_default", "foodefault_bar", "efaul"):
        model.add_adapter(name, tuner())
    model.save_pretrained(str(tmp_path), selected_adapters=["default"])
    assert len(load_file(tmp_path / FILE)) == count
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    with pytest.raises(ValueError, match="invalid `selected_adapters`"):
        model.save_pretrained(str(tmp_path), selected_adapters=["absent"])


@every_tuner
def test_keys_of_the_file_do_not_depend_on_the_name(tuner: Tuner) -> None:
    keys = {}
    for name in ("default", "a", "0", "cores"):
        model = adapted(tuner, adapter_name=name)
        keys[name] = set(get_peft_model_state_dict(model, adapter_name=name))
    assert len({frozenset(value) for value in keys.values()}) == 1
    for key in keys["default"]:
        assert key.startswith("base_model.model.")
        assert "default" not in key


@every_tuner
def test_state_dict_is_that_of_the_model(tuner: Tuner) -> None:
    """An explicit state dict, such as one gathered from shards, gives the same entries."""
    model = adapted(tuner)
    copy = {key: value.clone() for key, value in model.state_dict().items()}
    expected = get_peft_model_state_dict(model)
    torch.testing.assert_close(get_peft_model_state_dict(model, state_dict=copy), expected)


@every_own_tuner
def test_a_gathered_state_dict_without_some_tensors_is_refused(tuner: Tuner) -> None:
    model = adapted(tuner, adapter_name="x")
    model.add_adapter("0", tuner())  # the name of the first layer
    copy = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"(?s)adapter 'x'.*layers\.0\..*rename that adapter"):
        get_peft_model_state_dict(model, state_dict=copy, adapter_name="x")


@every_tuner
def test_injection_without_a_peft_model(tuner: Tuner) -> None:
    source = inject_adapter_in_model(tuner(), llama(), "x")
    perturb([value for value in source.parameters() if value.requires_grad])
    state = get_peft_model_state_dict(source, adapter_name="x")
    target = inject_adapter_in_model(tuner(), llama(), "y")
    assert (logits(source.eval()) - logits(target.eval())).abs().max() > 1e-3
    set_peft_model_state_dict(target, state, adapter_name="y")
    assert_equal(target, logits(source))
    meta = inject_adapter_in_model(tuner(), llama(), "z", low_cpu_mem_usage=True)
    set_peft_model_state_dict(meta, state, adapter_name="z", low_cpu_mem_usage=True)
    assert_equal(meta, logits(source))


@every_tuner
def test_modules_that_train_whole_are_saved(tuner: Tuner, tmp_path: Path) -> None:
    model = adapted(tuner, modules_to_save=["norm"])
    model.save_pretrained(str(tmp_path))
    assert "base_model.model.model.norm.weight" in load_file(tmp_path / FILE)
    assert_equal(PeftModel.from_pretrained(llama(), tmp_path), logits(model))
    other = PeftModel.from_pretrained(llama(), tmp_path, adapter_name="0")
    assert_equal(other, logits(model))
    plain = llama()
    plain.load_adapter(str(tmp_path))
    assert_equal(plain, logits(model))


@every_tuner
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # LoRA's
def test_transposed_layers(tuner: Tuner, tmp_path: Path) -> None:
    options = {"target_modules": ["c_attn"]}
    if "dims" in tuner.settings:
        options |= {"dims": (4, 4), "rectangular": "pad"}
    model = adapted(tuner, gpt2(), **options)
    model.save_pretrained(str(tmp_path))
    assert (logits(model) - logits(gpt2())).abs().max() > 1e-3
    assert_equal(PeftModel.from_pretrained(gpt2(), tmp_path), logits(model))


@every_tuner
def test_configuration_survives(tuner: Tuner, tmp_path: Path) -> None:
    config = tuner(modules_to_save=["norm"], exclude_modules=["x"], task_type="CAUSAL_LM")
    config.save_pretrained(str(tmp_path))
    loaded = PeftConfig.from_pretrained(str(tmp_path))
    assert type(loaded) is type(config)
    assert loaded.to_dict() == config.to_dict()
    json.loads((tmp_path / "adapter_config.json").read_text())


# What does not fit is refused.


@every_own_tuner
@pytest.mark.parametrize("what", ["missing", "unexpected", "shape", "empty"])
def test_a_damaged_file_is_refused(saved: Any, what: str) -> None:
    folder, _ = saved
    tensors = load_file(folder / FILE)
    first = min(tensors)
    if what == "missing":
        del tensors[first]
    elif what == "unexpected":
        tensors[first.replace("layers.0", "layers.7")] = tensors[first].clone()
    elif what == "shape":
        tensors[first] = torch.zeros(3)
    else:
        tensors = {"unrelated": torch.zeros(3)}
    save_file(tensors, folder / FILE)
    named = {"unexpected": "layers.7", "shape": "size mismatch"}.get(what, first)
    with pytest.raises((ValueError, RuntimeError), match=named):
        PeftModel.from_pretrained(llama(), folder)
    if what in ("missing", "empty"):
        model = llama()
        model.load_adapter(str(folder))  # which reports it, and goes on
        with pytest.raises(RuntimeError, match="have no values"):
            logits(model)


@every_own_tuner
def test_an_adapter_for_inference_needs_values(tuner: Tuner) -> None:
    model = get_peft_model(llama(), tuner(inference_mode=True)).eval()
    with pytest.raises(RuntimeError, match="have no values"):
        logits(model)
    set_peft_model_state_dict(model, get_peft_model_state_dict(adapted(tuner)))
    assert_equal(model, logits(adapted(tuner)))


# Files of earlier versions.


class Block(nn.Module):
    """The base of the files in `adapters_0_1`."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)
        with torch.no_grad():
            self.proj.weight.copy_(torch.linspace(-1, 1, 64).reshape(8, 8))
            self.proj.bias.copy_(torch.linspace(-0.5, 0.5, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x)


@pytest.mark.parametrize("folder", sorted(OLD_FILES.iterdir()), ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["default", "mine", "0", "down"])
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
# A setting that a tuner no longer has is ignored; `peft` says so.
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_files_of_earlier_versions(folder: Path, name: str, low_cpu_mem_usage: bool) -> None:
    """Their keys have the adapter's name of then, "mine", in front of nested tensors."""
    model = PeftModel.from_pretrained(
        Block(), folder, adapter_name=name, low_cpu_mem_usage=low_cpu_mem_usage
    )
    x = torch.linspace(-1, 1, 24).reshape(3, 8)
    expected = load_file(folder / "expected.safetensors")["output"]
    torch.testing.assert_close(model.eval()(x), expected, rtol=1e-5, atol=1e-5)
