"""Parameter counts of methods on models without weights, against the published figures."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from baselines.base import NoFineTuning
from baselines.full import FullFineTuning
from baselines.lora import Dora, Lora
from baselines.quanta.method import Quanta
from quanta_bench.errors import UsageError
from quanta_bench.models.meta import Count, count, known_models, meta_model

FIVE = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
BASES = {
    "gemma2-2b": 2_614_341_888,
    "gpt2": 124_439_808,
    "llama-13b": 13_015_864_320,
    "llama-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "roberta-base": 124_647_170,  # with a two-way classification head of 592,130
    "smollm2-135m": 134_515_008,
    "smollm2-1.7b": 1_711_376_384,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
}


@pytest.mark.parametrize("name", BASES)
def test_base_parameters(name: str) -> None:
    model = meta_model(name)
    assert all(value.is_meta for value in model.parameters())
    assert sum(value.numel() for value in model.parameters()) == BASES[name]


def test_known_models() -> None:
    assert known_models() == tuple(sorted(BASES))


def test_no_memory_for_weights() -> None:
    # In a process of its own, for the peak is a process's. These weights would be 276 GB.
    code = (
        "from baselines.lora import Lora\n"
        "from quanta_bench.utils.device import peak_memory\n"
        "from quanta_bench.models.meta import count, meta_model\n"
        "count(meta_model('llama2-70b'), Lora.from_settings({'r': 128}))\n"
        "print(peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert int(done.stdout) < 2**30


def test_a_model_is_found_by_its_name_on_the_hub() -> None:
    assert meta_model("meta-llama/Meta-Llama-3-8B").config.vocab_size == 128_256


def test_unknown_model() -> None:
    with pytest.raises(UsageError, match=r"'lama-7b'.*Did you mean.*'llama-7b'"):
        meta_model("lama-7b")


@pytest.mark.parametrize(
    ("method", "settings", "model", "trainable", "denominator", "printed"),
    [
        # QuanTA paper, Tables 2 and F.5
        (Lora, {"r": 8}, "llama2-7b", 4_194_304, "base", "0.062%"),
        (Lora, {"r": 32}, "llama2-7b", 16_777_216, "base", "0.249%"),
        (Lora, {"r": 128}, "llama2-7b", 67_108_864, "base", "0.996%"),
        (Lora, {"r": 8}, "llama2-13b", 6_553_600, "base", "0.050%"),
        (Lora, {"r": 8}, "llama2-70b", 16_384_000, "base", "0.024%"),
        (Quanta, {"dims": [16, 8, 8, 4]}, "llama2-7b", 2_752_512, "base", "0.041%"),
        # Tables 3 and 4
        (Lora, {"r": 32, "target_modules": FIVE}, "llama-7b", 56_098_816, "base+added", "0.83%"),
        (Lora, {"r": 32, "target_modules": FIVE}, "llama-13b", None, "base+added", "0.67%"),
        (Dora, {"r": 16, "target_modules": FIVE}, "llama-7b", 28_925_952, "base+added", "0.43%"),
        (Dora, {"r": 32, "target_modules": FIVE}, "llama-7b", 56_975_360, "base+added", "0.84%"),
        (Dora, {"r": 16, "target_modules": FIVE}, "llama3-8b", 29_097_984, "base+added", "0.36%"),
        (
            Quanta,
            {"dims": [16, 16, 4, 4], "target_modules": FIVE, "rectangular": "pad"},
            "llama-7b",
            13_148_160,
            "base+added",
            "0.19%",
        ),
        (
            Quanta,
            {"dims": [16, 16, 5, 4], "target_modules": FIVE, "rectangular": "pad"},
            "llama-13b",
            17_385_600,
            "base+added",
            "0.13%",
        ),
        # Table F.7: with the classification head
        (Lora, {"target_modules": ["query", "value"]}, "roberta-base", 887_042, "base", "0.71%"),
    ],
)
def test_published_counts(
    method: Any,
    settings: dict[str, Any],
    model: str,
    trainable: int | None,
    denominator: Any,
    printed: str,
) -> None:
    found = count(meta_model(model), method.from_settings(settings))
    assert found.trainable == found.added
    assert found.base == BASES[model]
    if trainable is not None:
        assert found.trainable == trainable
    digits = len(printed.split(".")[1]) - 1
    assert f"{100 * found.share(denominator):.{digits}f}%" == printed


def test_full_fine_tuning_adds_nothing_and_trains_all() -> None:
    found = count(meta_model("llama2-7b"), FullFineTuning.from_settings({}))
    assert found == Count(trainable=BASES["llama2-7b"], base=BASES["llama2-7b"], added=0)
    assert found.of_base == found.of_total == 1


def test_the_base_row_trains_nothing() -> None:
    found = count(meta_model("gpt2"), NoFineTuning.from_settings({}))
    assert (found.trainable, found.added, found.of_total) == (0, 0, 0)


def test_rows_of_the_paper_fit_its_models() -> None:
    for method in (Lora, Dora, Quanta, FullFineTuning):
        row = method.rows["paper"]
        assert count(meta_model("llama-7b"), method.from_settings(row.config)).trainable
