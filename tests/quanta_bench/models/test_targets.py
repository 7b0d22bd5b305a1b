"""Layers to adapt are found on any architecture, for every method, and the user is told which."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from animals import write_data
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from tiny_architectures import tiny, tiny_config

from quanta_bench.cli.single_run import job
from quanta_bench.models.targets import counterparts, with_counterparts
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.suites.grid import grid
from quanta_bench.suites.schema import Suite

QUERY_AND_VALUE = ("q_proj", "v_proj")
MLP = ("gate_proj", "up_proj", "down_proj")

EXPECTED = {
    "gpt2": (("c_attn",), ("c_fc", "mlp.c_proj")),
    "bloom": (("query_key_value",), ("dense_h_to_4h", "dense_4h_to_h")),
    "opt": (("q_proj", "v_proj"), ("fc1", "fc2")),
    "phi3": (("qkv_proj",), ("gate_up_proj", "down_proj")),
    "mamba": (("in_proj",), ("in_proj", "x_proj", "dt_proj", "out_proj")),
    "mixtral": (("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj")),
    "deepseek_v3": (("q_b_proj", "kv_b_proj"), MLP),
    "bert": (("query", "value"), ("intermediate.dense", "output.dense")),
    "llama": (QUERY_AND_VALUE, MLP),
}
"""By hand, from the modules of each architecture: where queries and values are computed, and the
MLP; where there is none of linear layers, all layers of the blocks."""

FOUND_FOR = ("lora", "dora", "quanta", "krona", "mora", "loretta_rep", "loretta_adp", "series",
             "parallel", "qtha", "qpa", "peft")  # fmt: skip
"""The methods whose settings name layers."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, str] = {}

    def folder(kind: str) -> str:
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            content = tiny_config(kind).to_dict()
            (root / "config.json").write_text(json.dumps(content, default=str))
            made[kind] = f"local:{root}"
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"file:{write_data(tmp_path_factory.mktemp('data'))}"


@pytest.mark.parametrize("kind", EXPECTED)
def test_counterparts(folders: Any, kind: str) -> None:
    attention, mlp = EXPECTED[kind]
    assert counterparts(folders(kind), QUERY_AND_VALUE) == attention
    assert counterparts(folders(kind), MLP) == mlp


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "falcon", "mpt", "codegen", "gpt_neox", "bert"])
def test_queries_and_values_are_those_of_pefts_own_table(folders: Any, kind: str) -> None:
    theirs = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[kind]
    assert set(counterparts(folders(kind), QUERY_AND_VALUE)) == set(theirs)


def test_names_that_are_not_llamas_stay(folders: Any) -> None:
    assert counterparts(folders("gpt2"), ("lm_head", "q_prj")) == ("lm_head", "q_prj")
    settings = {"target_modules": "q_proj", "r": 4, "settings": {"target_modules": ["c_fc"]}}
    assert with_counterparts(folders("gpt2"), settings) == {}
    nested = {"settings": {"target_modules": ["q_proj", "v_proj"], "r": 2}}
    found = {"settings": {"target_modules": ("c_attn",), "r": 2}}
    assert with_counterparts(folders("gpt2"), nested) == found


def test_every_method_that_names_layers_is_tried() -> None:
    def names(value: Any) -> bool:
        if isinstance(value, dict):
            return any(map(names, value.values()))
        return isinstance(value, (list, tuple, set)) and "v_proj" in value

    found = set()
    for name in METHODS.names():
        method = METHODS.get(name)
        config = method.rows["embedded"].config if "embedded" in method.rows else {}
        dumped = build_method(name, config).config.model_dump() | dict(config)
        if names(dumped) or "down_proj" in str(dumped):
            found.add(name)
    assert found <= set(FOUND_FOR)


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "opt", "phi3", "mamba"])
@pytest.mark.parametrize("method", FOUND_FOR)
def test_a_run_without_settings_adapts_the_model(
    folders: Any, data: str, method: str, kind: str
) -> None:
    told: list[str] = []
    made = job(method, [data], {}, 0, folders(kind), "embedded", tell=told.append)
    if kind != "opt" or method in ("series", "loretta_adp"):
        assert "instead of" in " ".join(told)
        assert "does not have" in " ".join(told)
    built = build_method(method, made.training.settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = built.adapt(tiny(kind), 0)
    trained = built.trainable(adapted)
    assert trained
    names = made.training.settings.get("target_modules", ())
    if names and method != "qpa":  # whose trained tensors belong to no layer
        assert all(any(f".{name}." in own for name in names) for own in trained)


def test_a_suites_own_names_are_never_replaced_and_others_are(folders: Any, data: str) -> None:
    rows = [
        "lora",
        "quanta",
        {"method": "lora", "label": "LoRA r=2", "settings": {"r": 2}},
        {"method": "mora", "settings": {"r": 2, "target_modules": ["q_proj"]}},
    ]
    profile = {"model": ".", "model_source": folders("gpt2"), "seeds": [0], "rows": rows}
    suite = Suite.model_validate(
        {"name": "own", "title": "Own", "tasks": [data], "profiles": {"embedded": profile}}
    )
    made = {row.spec.label: row for row in grid(suite, "embedded")}
    assert made["LoRA r=8"].spec.settings["target_modules"] == ("c_attn",)
    assert made["LoRA r=8"].note.startswith("LoRA r=8: target_modules=[c_attn] instead of")
    assert made["LoRA r=8"].spec.origin["target_modules"] == "found for this model"
    assert made["LoRA r=2"].spec.settings == {"r": 2, "target_modules": ("c_attn",)}
    (quanta,) = (row for row in made.values() if row.spec.method == "quanta")
    assert quanta.spec.settings["target_modules"] == ("c_attn",)
    assert "which does not fit this model" in quanta.note
    (mora,) = (row for row in made.values() if row.spec.method == "mora")
    assert mora.spec.settings["target_modules"] == ["q_proj"]
    assert not mora.note


def test_what_the_user_names_in_a_run_stays(folders: Any, data: str) -> None:
    given = {"target_modules": ["c_fc"], "r": 2}
    assert job("lora", [data], given, 0, folders("gpt2"), "embedded").training.settings == {
        "target_modules": ["c_fc"], "r": 2
    }  # fmt: skip
    told: list[str] = []
    made = job("lora", [data], {"r": 2}, 0, folders("gpt2"), "embedded", tell=told.append)
    assert made.training.settings == {"r": 2, "target_modules": ("c_attn",)}
    assert told


@pytest.mark.parametrize("revision", ["main", "v2"])
def test_a_hub_model_is_fitted_by_its_downloaded_configuration(
    folders: Any, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    """The hub's client finds the file in its cache, as after a download."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--someone--tiny-gpt" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / revision).write_text("0" * 40)
    content = Path(folders("gpt2").removeprefix("local:"), "config.json").read_text()
    (snapshot / "config.json").write_text(content)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    made = job("lora", [data], {}, 0, f"hub:someone/tiny-gpt@{revision}", "embedded")
    assert made.training.settings["target_modules"] == ("c_attn",)
