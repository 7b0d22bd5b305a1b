"""QuanTA as one of `peft`'s own tuners: the files of ``contrib/peft``.

They are laid over `peft`'s source distribution, which pip fetches once (``tests/peft_source.py``);
what needs it is skipped where it cannot be had.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from contrib.peft import generate
from tests.baselines.conformity.tuners import IDS, TUNERS, adapted, gpt2, llama, logits
from tests.contrib import hub_models
from tests.contrib.peft_branch import CONTRIB, PYTEST, lay_over, run
from tests.peft_source import SourceMissingError, peft_source

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sizes by module": (llama, {"dims": {"q_proj": (4, 4), ".*": None}}),
    "padded": (
        llama,
        {"dims": (3, 2, 4), "rectangular": "pad", "target_modules": ["v_proj", "down_proj"]},
    ),
    "grown by a gate, transposed": (gpt2, {"dims": (6, 4, 2), "target_modules": ["c_attn"]}),
}
"""By name: the base model and the settings of this project's adapter."""

EXAMPLE = CONTRIB / "examples" / "quanta_finetuning" / "quanta_finetuning.py"
FILES = ["config", "custom_models", "initialization", "quantization", "decoder_models"]
FILES += ["encoder_decoder_models", "feature_extraction_models", "seq_classifier"]
RULES = ["--select", "E,F,I,UP,W", "--ignore", "E501,UP007,UP045"]
"""Rules of `peft` that a file of its own can break."""

FROM_THE_HUB = ["test_from_pretrained", "test_save_pretrained_with_runtime_config"]
"""Tests of configurations that load a published adapter."""


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        peft_source()
    except SourceMissingError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("branch")
    lay_over(folder)
    return folder


@pytest.fixture(scope="module")
def cases(branch: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of the cases, after a process with the branch's `peft` has answered them."""
    root = tmp_path_factory.mktemp("cases")
    for name, (base, settings) in CASES.items():
        base().save_pretrained(root / name / "base")
        adapted(TUNERS["quanta"], base(), **settings).save_pretrained(root / name / "adapter")
        save_file({"ids": IDS}, root / name / "ids.safetensors")
    script = str(Path(__file__).with_name("branch_process.py"))
    chosen = "tests/test_initialization.py::TestQuantaInitialization"
    done = run(branch, [script, str(root), *PYTEST, chosen])
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
    return root


@pytest.mark.parametrize("name", CASES)
def test_the_branch_loads_our_adapters_and_computes_the_same(cases: Path, name: str) -> None:
    base, settings = CASES[name]
    ours = adapted(TUNERS["quanta"], base(), **settings)
    outputs = load_file(cases / name / "outputs.safetensors")
    assert not torch.allclose(outputs["ours"], outputs["base"], atol=0.01)
    torch.testing.assert_close(outputs["ours"], logits(ours), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs["merged"], outputs["ours"], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
@pytest.mark.parametrize("name", CASES)
def test_the_branch_s_adapters_load_here_and_compute_the_same(cases: Path, name: str) -> None:
    model: nn.Module = PeftModel.from_pretrained(CASES[name][0](), cases / name / "theirs").eval()
    outputs = load_file(cases / name / "outputs.safetensors")
    assert not torch.allclose(outputs["theirs"], outputs["base"], atol=0.01)
    torch.testing.assert_close(logits(model), outputs["theirs"], rtol=1e-4, atol=1e-4)


def test_files_have_our_present_code() -> None:
    assert generate.TARGET.read_text(encoding="utf-8") == generate.generated(), (
        "baselines/quanta has changed: python contrib/peft/generate.py"
    )


def test_files_need_nothing_of_ours() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in CONTRIB.rglob("src/**/*.py"))
    assert "baselines" not in text
    assert "quanta_bench" not in text


def test_files_are_in_the_style_of_peft(branch: Path, tmp_path: Path) -> None:
    rules = (peft_source() / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    config = tmp_path / "pyproject.toml"
    # Any version of ruff will do; a newer one has further rules by default.
    config.write_text("\n".join(line for line in rules if "required-version" not in line))
    ours = ["src/peft/tuners/quanta", str(EXAMPLE.parent)]
    changed = ["src/peft/__init__.py", "src/peft/tuners/__init__.py", "src/peft/utils"]
    changed += [f"tests/test_{name}.py" for name in FILES]
    for words in (["check", *RULES, *ours], ["format", "--check", *ours, *changed]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(config)]
        done = subprocess.run(command, cwd=branch, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "folder", sorted(CONTRIB.glob("method_comparison/*/experiments/quanta/*")), ids=lambda p: p.name
)
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_an_experiment_fits_its_model(folder: Path) -> None:
    # Llama-3.2-3B, which the comparison fine-tunes, with two of its layers.
    config = LlamaConfig(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=2,
        num_attention_heads=24,
        num_key_value_heads=8,
        vocab_size=64,
    )
    with torch.device("meta"):
        model = get_peft_model(LlamaForCausalLM(config), PeftConfig.from_pretrained(folder))
    # The sum of (d_m d_n)^2 over pairs; in v_proj, one gate on the first axis is a third.
    dims = PeftConfig.from_pretrained(folder).dims or (12, 16, 16)
    square = sum((m * n) ** 2 for m, n in itertools.combinations(dims, 2))
    trained, _ = model.get_nb_trainable_parameters()
    assert trained == 2 * (2 * square - (dims[0] * dims[1]) ** 2 * 2 // 3)


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")
def test_the_example_trains_an_adapter(
    branch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny_models import save_llama

    save_llama(tmp_path / "base")
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"text": f"Animal {n} says moo"} for n in range(16)]
    (tmp_path / "data" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["--base_model", "base", "--data_path", "data", "--num_epochs", "2"]
    words += ["--target_modules", "q_proj", "v_proj", "--dims", "4", "4", "4", "--cutoff_len", "16"]
    done = run(branch, [str(EXAMPLE), *words, "--output_dir", "adapter"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    # Two layers of three gates of (4 x 4)^2; in v_proj one of them halves the width.
    assert f"trainable params: {2 * (6 * 256 - 128):,} " in done.stdout
    base = LlamaForCausalLM.from_pretrained(tmp_path / "base").eval()
    before = logits(base)
    # It is trained, since an adapter starts as the base, and this project loads it.
    model: nn.Module = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not torch.allclose(logits(model), before, atol=1e-3)


@pytest.mark.slow
def test_the_whole_branch_passes_peft_s_own_tests(branch: Path) -> None:
    hub_models.write(branch)
    files = [f"tests/test_{name}.py" for name in FILES]
    wanted = f"quanta and not ({' or '.join(FROM_THE_HUB)})"
    done = run(branch, ["-m", "pytest", *PYTEST, "--tb=short", *files, "-k", wanted])
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    passed = int(done.stdout.rsplit(" passed", 1)[0].rsplit(maxsplit=1)[-1].lstrip("="))
    assert passed > 700, done.stdout[-2_000:]
