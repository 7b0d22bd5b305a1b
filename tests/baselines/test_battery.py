"""What every registered method must do, a plug-in of another package too, and `peft`'s tuners.

A method is tried with its default settings, or those of its embedded row where it has no
defaults. A claim that it makes is held against what it does.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines import peft_types
from baselines.any_peft import AnyPeft
from quanta_bench.method import BenchError, Method, UsageError
from quanta_bench.registry import METHODS_GROUP, Registry

REGISTRY: Registry[type[Method[Any]]] = Registry(METHODS_GROUP, "method", Method)

QV = {"target_modules": ["q_proj", "v_proj"]}
TUNERS: dict[str, dict[str, Any]] = {
    "ADAMSS": QV,
    "BEFT": QV,
    "BOFT": {**QV, "boft_block_size": 4},
    "C3A": {**QV, "block_size": 32},
    "CARTRIDGE": {"num_virtual_tokens": 3, "num_frozen_tokens": 0},
    "DEFT": QV,
    "DELORA": QV,
    "FOURIERFT": {**QV, "n_frequency": 50},
    "FROD": QV,
    "GLORA": QV,
    "GRALORA": QV,
    "HIRA": QV,
    "HRA": QV,
    "IA3": {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LILY": QV,
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "LOHA": QV,
    "LOKR": QV,
    "LORA": {**QV, "modules_to_save": ["norm"]},
    "MISS": QV,
    "OFT": {**QV, "oft_block_size": 8},
    "OSF": QV,
    "PEANUT": QV,
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PSOFT": QV,
    "PVERA": QV,
    "RANDLORA": QV,
    "ROAD": {**QV, "group_size": 16},
    "SHIRA": {**QV, "r": 4},
    "SUPERTUNING": QV,
    "TINYLORA": QV,
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [5, 9]},
    "UNILORA": QV,
    "VBLORA": {**QV, "vector_length": 16, "num_vectors": 16, "r": 2},
    "VERA": QV,
    "WAVEFT": {**QV, "n_frequency": 50},
}
NEEDS_WEIGHTS = {"ADAMSS", "BOFT", "FROD", "SHIRA", "UNILORA"}  # for their start
NO_CHECKPOINTING = {"CARTRIDGE", "PREFIX_TUNING", "prefix"}


def _registered(name: str) -> Method[Any]:
    kind = REGISTRY.get(name)
    if any(field.is_required() for field in kind.Config.model_fields.values()):
        return kind.from_settings(kind.rows["embedded"].config)
    return kind.from_settings({})


def _method(case: str) -> Method[Any]:
    if case in TUNERS:
        return AnyPeft.from_settings({"type": case, "settings": TUNERS[case]})
    return _registered(case)


CASES = [*REGISTRY.names(), *TUNERS]
pytestmark = [
    pytest.mark.parametrize("case", CASES),
    # What `peft` tells a user of one tuner about this model, which is as it is.
    pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias"),  # BEFT
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension"),  # BOFT
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor"),  # BOFT, without it
    pytest.mark.filterwarnings("ignore:Sparse invariant checks"),  # FROD, of torch
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),  # LN_TUNING, of RMS norms
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings"),  # TRAINABLE_TOKENS
]


@pytest.fixture(scope="module")
def trained(train: Callable[..., Any]) -> Callable[[str], Any]:
    """The trained model of a case, made once; a test that changes it makes its own."""
    return cache(lambda case: train(_method(case)))


def test_only_declared_parameters_train(case: str, trained: Any) -> None:
    run = trained(case)
    declared = {id(value) for value in run.trainable.values()}
    assert bool(declared) is run.method.trains
    for name, value in run.model.named_parameters():
        assert value.requires_grad is (id(value) in declared), name
    still = [name for name, start in run.start.items() if torch.equal(start, run.trainable[name])]
    assert still == []
    for name, (value, before) in run.base.items():
        if id(value) not in declared:
            assert torch.equal(value, before), name


def test_start_equals_base_or_claims_otherwise(case: str, tiny: Any, logits: Any) -> None:
    method = _method(case)
    base = tiny()
    expected = logits(base)
    difference = (logits(method.adapt(base, seed=3)) - expected).abs().max()
    if method.exact_start:
        assert difference < 1e-5
    else:
        assert difference > 1e-5
        assert method.exact_start.reason


def test_learns(case: str, trained: Any, ids: Any) -> None:
    run = trained(case)
    assert run.logits.shape == (*ids.shape, 97)
    if run.method.trains:
        assert run.losses[-1] < run.losses[0] - 0.02


@pytest.fixture(scope="module")
def reloaded(tmp_path_factory: pytest.TempPathFactory, tiny: Any, trained: Any) -> dict[str, Path]:
    """What a fresh process makes of every case's folder: all in one, for imports take seconds."""
    folder = tmp_path_factory.mktemp("saved")
    tiny().save_pretrained(folder / "base")
    for case in CASES:
        run = trained(case)
        run.method.save(run.model, folder / case / "adapter")
        with (folder / case / "method.txt").open("w") as file:
            file.write(f"{type(run.method).__module__}:{type(run.method).__qualname__}\n")
            file.write(run.method.config.model_dump_json())
    script = Path(__file__).with_name("fresh_process.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True, timeout=300)
    return {case: folder / case for case in CASES}


def test_saved_is_loaded_in_a_fresh_process(
    case: str, reloaded: dict[str, Path], trained: Any
) -> None:
    folder = reloaded[case]
    error = folder / "error.txt"
    assert not error.exists(), error.read_text()
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt"))
    found = load_file(folder / "output.safetensors")["logits"]
    torch.testing.assert_close(found, trained(case).logits, rtol=0, atol=1e-6)


def test_merged_equals_unmerged(case: str, train: Any, tiny: Any, logits: Any) -> None:
    run = train(_method(case), steps=5)
    expected = run.logits
    if not run.method.mergeable:
        with pytest.raises(BenchError, match="cannot be merged"):
            run.method.merge(run.model)
        return
    merged = run.method.merge(run.model)
    assert type(merged) is type(tiny())
    assert {name for name, _ in merged.named_parameters()} == set(run.base)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


def test_trains_in_float32_on_a_bfloat16_base(case: str, train: Any) -> None:
    run = train(_method(case), dtype=torch.bfloat16, steps=2)
    if not run.method.trains:
        return
    assert run.losses[1] == run.losses[1]
    assert {value.dtype for value in run.trainable.values()} == {torch.float32}
    assert run.optimizer is not None
    for value in run.trainable.values():
        assert run.optimizer.state[value]["exp_avg"].dtype is torch.float32
        assert run.optimizer.state[value]["exp_avg_sq"].dtype is torch.float32
    assert _lost_steps(run) == []


def _lost_steps(run: Any) -> list[str]:
    """Parameters that a step below half a unit in the last place of bfloat16 does not move."""
    lost = []
    for name, value in run.trainable.items():
        value.grad = -value.detach() * 2.0**-10  # half a unit is 2^-9 to 2^-8 of a value
        before = value.detach().clone()
        torch.optim.SGD([value], lr=1.0).step()
        if bool(((value == before) & (before != 0)).any()):
            lost.append(name)
    return lost


def test_gradient_checkpointing_gives_the_same_gradients(case: str, tiny: Any, ids: Any) -> None:
    gradients = []
    for checkpointing in (False, True):
        method, base = _method(case), tiny()
        if not method.trains:
            return
        if checkpointing:
            _checkpoint(base)
        if checkpointing and case in NO_CHECKPOINTING:
            with pytest.raises((UsageError, ValueError), match="gradient checkpointing"):
                method.adapt(base, seed=3)
            return
        model = method.adapt(base, seed=3).train()
        assert base.model.layers[0].gradient_checkpointing is checkpointing
        torch.manual_seed(0)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: value.grad for name, value in method.trainable(model).items()})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)


def _checkpoint(model: Any) -> None:
    new = getattr(model, "activation_checkpointing_enable", None)  # its name in transformers 5.2x
    (new or model.gradient_checkpointing_enable)({"use_reentrant": False})


def test_start_depends_on_the_seed_alone(case: str, tiny: Any) -> None:
    starts = []
    for outer in (1, 2):
        method, base = _method(case), tiny()
        random.seed(outer)
        np.random.seed(outer)
        torch.manual_seed(outer)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
        model = method.adapt(base, seed=3)
        after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2])
        starts.append({**model.state_dict()})
    torch.testing.assert_close(starts[0], starts[1], rtol=0, atol=0)


def test_count_on_the_meta_device_is_the_real_one(case: str, tiny: Any, trained: Any) -> None:
    method = _method(case)
    if case in NEEDS_WEIGHTS:
        with pytest.raises(BenchError, match="meta device"):
            method.adapt(tiny("meta"), seed=0)
        return
    model = method.adapt(tiny("meta"), seed=0)
    assert all(value.is_meta for value in model.parameters())
    counts = [
        sum(value.numel() for value in values.values())
        for values in (method.trainable(model), trained(case).trainable)
    ]
    assert counts[0] == counts[1]


def test_bad_settings_are_refused_in_words(case: str, tiny: Any) -> None:
    if case in TUNERS:
        kind, good = AnyPeft, {"type": case, "settings": TUNERS[case]}
    else:
        kind, good = REGISTRY.get(case), dict(_registered(case).config)
    with pytest.raises(UsageError, match="no setting 'no_such_setting'"):
        kind.from_settings({**good, "no_such_setting": 1})
    for key in kind.Config.model_fields:
        with pytest.raises(UsageError, match=f"Did you mean .*{key!r}"):
            kind.from_settings({**good, f"{key}x": 1})
        with pytest.raises(UsageError, match=key):
            kind.from_settings({**good, key: object()})
    if "target_modules" in kind.Config.model_fields:
        method = kind.from_settings({**good, "target_modules": ["q_prj"]})
        with pytest.raises(UsageError, match=r"'q_prj'.*'q_proj'"):
            method.adapt(tiny(), seed=0)


def test_registered_class_says_what_it_is(case: str) -> None:
    method = _method(case)
    assert method.title
    assert method.source
    for row in method.rows.values():
        fits = type(method).from_settings(row.config)
        assert row.label
        assert set(row.origin) <= {*type(fits).Config.model_fields, *row.training, "r"}
    for claim in (method.mergeable, method.exact_start, method.cacheable):
        assert claim or claim.reason
    if case in TUNERS:
        assert case in peft_types.TESTED
