"""Loading a model with a new classification head, against what `transformers` and `peft` do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from quanta_bench.errors import SourceError, UsageError
from quanta_bench.models.heads import check_trains, head_of
from quanta_bench.models.loading import LoadedModel, ModelRef, load_classifier
from quanta_bench.plugins import METHODS, build_method

HEAD = {
    f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")
}
QV = {"target_modules": ("query", "value")}
SETTINGS: dict[str, dict[str, Any]] = {
    "loretta_adp": {"target_modules": ("intermediate.dense",)},
    "peft": {"type": "VERA", "settings": {"target_modules": ["query", "value"], "r": 4}},
    "quanta": {**QV, "dims": (4, 4, 4)},
    "krona": {**QV, "side": 8},
    "full": {},
    "prefix": {},
}


def classifier(folder: Path, outputs: int = 2, seed: int = 0, **options: Any) -> LoadedModel:
    dtype = options.pop("dtype", torch.float32)
    return load_classifier(ModelRef(".", f"local:{folder}"), dtype, outputs=outputs, seed=seed)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_the_body_is_the_checkpoints_and_the_head_is_the_seeds(tiny_roberta: Path) -> None:
    state = torch.get_rng_state()
    first, same, other = (weights(classifier(tiny_roberta, seed=s).model) for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    published = weights(AutoModelForMaskedLM.from_pretrained(tiny_roberta))
    assert {name for name in first if name not in published} == HEAD
    for name, value in first.items():
        assert torch.equal(value, same[name])
        if name in HEAD:
            assert torch.equal(value, other[name]) is name.endswith("bias")
        else:
            assert torch.equal(value, published[name])
    # 64 x 64 numbers: their deviation is known to about one in 90.
    assert float(first["classifier.dense.weight"].std()) == pytest.approx(0.02, rel=0.05)


def test_the_head_has_the_outputs_asked_for_and_is_float32(tiny_roberta: Path) -> None:
    loaded = classifier(tiny_roberta, 5, dtype=torch.bfloat16)
    model = loaded.model
    assert model.config.num_labels == 5
    assert {value.dtype for value in head_of(model).values()} == {torch.float32}
    assert model.roberta.embeddings.word_embeddings.weight.dtype is torch.bfloat16
    assert not model.training
    assert loaded.base_parameters == sum(value.numel() for value in model.parameters())
    # 66 positions, of which RoBERTa leaves out the padding token's number and those before it.
    assert loaded.tokenizer.model_max_length == 64


@pytest.mark.parametrize("labels", [2, 3])
def test_a_head_in_the_checkpoint_is_not_taken_over(
    tiny_roberta: Path, tmp_path: Path, labels: int
) -> None:
    with torch.random.fork_rng():
        old = AutoModelForSequenceClassification.from_pretrained(tiny_roberta, num_labels=labels)
    torch.nn.init.ones_(old.classifier.out_proj.weight)
    shutil.copytree(tiny_roberta, tmp_path / "fine_tuned")
    old.save_pretrained(tmp_path / "fine_tuned")
    found = weights(classifier(tmp_path / "fine_tuned", 2).model)
    expected = weights(classifier(tiny_roberta, 2).model)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_weights_that_are_missing_below_the_head_are_refused(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "cut"))
    state = load_file(folder / "model.safetensors")
    del state["roberta.encoder.layer.1.output.dense.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SourceError, match=r"lack 1 tensors of an encoder.*layer\.1\.output"):
        classifier(folder)


def test_pickles_are_refused_here_too(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "pickled"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SourceError, match="pickles"):
        classifier(folder)


# --- with methods -------------------------------------------------------------------------------


def cases() -> list[str]:
    return [name for name in METHODS.names() if name not in ("none", "qpa")]


def two_pairs(loaded: LoadedModel) -> Any:
    return loaded.tokenizer(
        ["a film", "many words"], ["of", "words of"], padding=True, return_tensors="pt"
    )


def answers(loaded: LoadedModel, model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**two_pairs(loaded)).logits
    return logits


@pytest.mark.filterwarnings("ignore:Consider using tensor.detach")
@pytest.mark.parametrize("name", cases())
def test_the_head_trains_with_every_method_and_comes_back_with_it(
    name: str, tiny_roberta: Path, tmp_path: Path
) -> None:
    method = build_method(name, SETTINGS.get(name, QV))
    loaded = classifier(tiny_roberta)
    head = set(head_of(loaded.model))
    model = method.adapt(loaded.model, 0)
    trained = method.trainable(model)
    check_trains(head, trained, name)
    before = weights(model)
    optimizer = torch.optim.SGD(trained.values(), lr=0.5)
    logits = model.train()(**two_pairs(loaded)).logits
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(value.grad is not None for value in trained.values())
    optimizer.step()
    moved = {key for key, value in weights(model).items() if not torch.equal(value, before[key])}
    assert moved <= set(trained)
    assert sum("classifier" in key for key in moved) == len(head)

    expected = answers(loaded, model)
    method.save(model, tmp_path)
    # Another start of the head: what was trained has to come from the folder.
    again = classifier(tiny_roberta, seed=9)
    assert torch.equal(answers(again, method.load(again.model, tmp_path)), expected)


def test_lora_trains_what_it_trains_by_pefts_own_hand(tiny_roberta: Path) -> None:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():
        plain = AutoModelForSequenceClassification.from_pretrained(tiny_roberta, num_labels=2)
    config = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    theirs = get_peft_model(plain, config)
    expected = {name: v.shape for name, v in theirs.named_parameters() if v.requires_grad}
    method = build_method("lora", QV)
    model = method.adapt(classifier(tiny_roberta).model, 0)
    assert {name: v.shape for name, v in method.trainable(model).items()} == expected


def test_all_of_a_head_trains_whatever_its_layers_are_called() -> None:
    """`peft` trains layers called classifier or score; DistilBERT's head has one more."""
    config = DistilBertConfig(vocab_size=40, dim=32, hidden_dim=32, n_layers=1, n_heads=2)
    model = DistilBertForSequenceClassification(config)
    head = set(head_of(model))
    assert {name.partition(".")[0] for name in head} == {"pre_classifier", "classifier"}
    method = build_method("lora", {"target_modules": ("q_lin",)})
    check_trains(head, method.trainable(method.adapt(model, 0)), "lora")


def test_a_method_that_leaves_the_head_out_is_refused() -> None:
    check_trains(["classifier.weight"], ["base.classifier.copies.default.weight"], "x")
    with pytest.raises(UsageError, match=r"'x' does not train classifier\.weight.*at random"):
        check_trains(["classifier.weight"], ["classifier.bias", "body.weight"], "x")
