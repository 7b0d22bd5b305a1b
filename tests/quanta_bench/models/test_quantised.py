"""Base models of few bits: trained on, dequantised, merged into; on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from animals import write_data
from finished_runs import FinishedRuns
from tiny_models import byte_tokenizer, tiny_llama
from torch import nn
from transformers import AutoModelForCausalLM

from quanta_bench.errors import BenchError, SourceError, UsageError
from quanta_bench.export.folder import export
from quanta_bench.models.loading import ModelRef, load_model
from quanta_bench.models.quantised import dequantise, is_quantised
from quanta_bench.plugins import build_method

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])


def bitsandbytes(**settings: Any) -> Any:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**settings)


NO_TORCHAO = (
    "torchao is not in the extra dev, as every import of peft would import it too: "
    "pip install torchao==0.18.0"
)


def torchao() -> Any:
    quantization = pytest.importorskip("torchao.quantization", reason=NO_TORCHAO)
    from transformers import TorchAoConfig

    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


KINDS: dict[str, Callable[[], Any]] = {
    "nf4": lambda: bitsandbytes(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32
    ),
    "int8": lambda: bitsandbytes(load_in_8bit=True, llm_int8_threshold=0.0),
    "torchao": torchao,
}

CLOSE = {"nf4": 1e-4, "int8": 0.5, "torchao": 1e-4}
"""How near a dequantised model's logits are; layers of 8 bits round their inputs too."""


def make(root: Path, kind: str, **settings: Any) -> Path:
    """A folder with the tiny model, in float32 or quantised, and its tokenizer."""
    folder = root / kind
    if folder.is_dir():
        return folder
    tokenizer = byte_tokenizer()
    model: Any = tiny_llama(
        vocab_size=len(tokenizer),
        # On a CPU, bitsandbytes multiplies by rows of whole blocks of 64.
        intermediate_size=128,
        max_position_embeddings=1024,
        # With the usual start the logits would be too small to tell models apart.
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    if kind != "plain":
        plain = make(root, "plain")
        quantisation = settings.pop("quantisation", None) or KINDS[kind]()
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=quantisation)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quantised")


@pytest.fixture(scope="module")
def runs(root: Path) -> Callable[[str], FinishedRuns]:
    """Makes finished runs on the model of a kind."""
    made: dict[str, FinishedRuns] = {}

    def of(kind: str) -> FinishedRuns:
        if kind not in made:
            folder = root / f"runs-{kind}"
            folder.mkdir()
            made[kind] = FinishedRuns(folder / "results", make(root, kind), write_data(folder))
        return made[kind]

    return of


def load(folder: Path) -> Any:
    return load_model(ModelRef(".", f"local:{folder}"), torch.float32)


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_dequantised_model_is_plain_and_computes_the_same(
    root: Path, kind: str, tmp_path: Path
) -> None:
    loaded = load(make(root, kind))
    model = loaded.model
    assert is_quantised(model)
    # A packed tensor has fewer entries than the weight that it stands for.
    assert loaded.base_parameters == load(make(root, "plain")).base_parameters
    quantised = logits(model)
    assert dequantise(model) is model
    assert not is_quantised(model)
    assert {type(p) for p in model.parameters()} == {nn.Parameter}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(logits(model), quantised, rtol=0, atol=CLOSE[kind])
    model.save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(saved), logits(model), rtol=0, atol=1e-5)


def test_gradients_pass_through_a_loaded_base(root: Path) -> None:
    """They are those of the dequantised model, also after a pass in evaluation mode."""
    found = []
    for plain in (False, True):
        model = load(make(root, "nf4")).model
        if plain:
            dequantise(model)
        logits(model)
        embeddings = model.get_input_embeddings()(IDS).detach().requires_grad_()
        model.train()(inputs_embeds=embeddings, labels=IDS).loss.backward()
        found.append(embeddings.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def test_a_model_in_the_form_for_inference_is_refused(root: Path) -> None:
    """Where `transformers` alone has loaded and run it, on a processor with AVX512-BF16."""
    functional = pytest.importorskip("bitsandbytes.functional")
    model: Any = AutoModelForCausalLM.from_pretrained(make(root, "nf4")).eval()
    logits(model)
    if functional.has_avx512bf16():
        with pytest.raises(UsageError, match="Load the model again and dequantise"):
            dequantise(model)
    else:
        assert not is_quantised(dequantise(model))


def test_a_plain_model_stays_as_it_is(root: Path) -> None:
    model = load(make(root, "plain")).model
    before = dict(model.named_parameters())
    assert dequantise(model) is model
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def check_merged(
    runs: Callable[[str], FinishedRuns], root: Path, kind: str, method: str, target: Path
) -> None:
    """Train on a quantised base, export merged, and compare with the adapter on the base."""
    settings = {"krona": {"side": 8}, "mora": {"r": 4}, "dora": {"r": 2}}
    settings["loretta_rep"] = {"bottleneck": 8, "rank": 2}
    run = runs(kind)(method, **settings.get(method, {}))
    spec = run.result.training.spec
    base = load(make(root, kind)).model
    plain = logits(base)
    adapted = build_method(spec.method, spec.settings).load(base, run.adapter())
    export(run, target, "merged")
    merged = logits(AutoModelForCausalLM.from_pretrained(target))
    torch.testing.assert_close(merged, logits(adapted), rtol=1e-3, atol=CLOSE[kind])
    # Training moved the outputs, so the base itself would have failed.
    assert (merged - plain).abs().max() > 3 * CLOSE[kind]


def test_a_run_on_four_bits_is_exported_merged(
    runs: Callable[[str], FinishedRuns], root: Path, tmp_path: Path
) -> None:
    check_merged(runs, root, "nf4", "quanta", tmp_path / "model")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_quantises_its_base_is_exported_merged(
    runs: Callable[[str], FinishedRuns], root: Path, tmp_path: Path, precision: str
) -> None:
    """Few bits that were made of bfloat16 stand for other weights than those made of float32."""
    bitsandbytes()
    dtype = getattr(torch, precision)
    settings = {"training.quantization": "nf4", "training.precision": precision}
    run = runs("plain")("krona", side=8, **settings)
    assert run.result.training.precision["base"] == precision
    ref = ModelRef(".", f"local:{make(root, 'plain')}")
    base = load_model(ref, dtype, quantization="nf4").model
    expected = dequantise(base).float()
    adapted = build_method("krona", {"side": 8}).load(expected, run.adapter())
    export(run, tmp_path / "model", "merged")
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "model"))
    torch.testing.assert_close(merged, logits(adapted), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["quanta", "lora", "krona", "mora", "loretta_rep", "dora"])
def test_runs_of_every_kind_are_exported_merged(
    runs: Callable[[str], FinishedRuns], root: Path, tmp_path: Path, kind: str, method: str
) -> None:
    if (method, kind) == ("dora", "int8"):
        pytest.skip("a second pass fails in bitsandbytes, whose state peft's DoRA has emptied")
    check_merged(runs, root, kind, method, tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_that_trains_quantised_weights_is_refused(
    runs: Callable[[str], FinishedRuns], kind: str
) -> None:
    with pytest.raises(UsageError, match=r"'full' trains the base's own weights.*are quantised"):
        runs(kind)("full")


def test_layers_that_depend_on_the_batch_are_refused(root: Path) -> None:
    """Outliers of LLM.int8 are found over all tokens of a batch."""
    folder = make(root, "outliers", quantisation=bitsandbytes(load_in_8bit=True))
    with pytest.raises(SourceError, match=r"cannot be scored.*llm_int8_threshold=0\.0"):
        load(folder)


def test_an_adapted_model_is_not_dequantised(root: Path) -> None:
    model = build_method("lora", {"r": 2}).adapt(load(make(root, "nf4")).model, 0)
    with pytest.raises(UsageError, match="dequantise the base model, then load"):
        dequantise(model)


def test_weights_that_cannot_be_dequantised_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    packed = torch.zeros(4, 2, dtype=torch.int32)
    model[0].weight = nn.Parameter(packed, requires_grad=False)
    with pytest.raises(BenchError, match="in a form that peft cannot dequantise"):
        dequantise(model)


def test_torchao_says_nothing_of_its_own_where_peft_imports_it() -> None:
    pytest.importorskip("torchao", reason=NO_TORCHAO)
    program = "import quanta_bench, torchao"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
