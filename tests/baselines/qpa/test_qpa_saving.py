"""What QPA saves: an adapter that `peft` loads by itself, and a generator to go on with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from baselines.lora import Lora
from baselines.qpa.method import Qpa
from quanta_bench.method import BenchError

KINDS = [
    {"inner": inner, "generators": generators}
    for inner in ("lora", "dora")
    for generators in ("model", "module")
]

PEFT_ALONE = """
import sys
from pathlib import Path
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
root = Path(sys.argv[1])
ids = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])
found = {}
for folder in (root / "saved").iterdir():
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / "base"), folder)
    with torch.no_grad():
        found[folder.name] = model.eval()(input_ids=ids).logits.contiguous()
save_file(found, root / "out")
assert not {"baselines", "quanta_bench", "pennylane"} & set(sys.modules)
"""


def test_peft_alone_loads_what_is_saved(qpa: Any, train: Any, tiny: Any, tmp_path: Path) -> None:
    runs = {f"{index}": train(qpa(**kind), steps=3) for index, kind in enumerate(KINDS)}
    expected = {}
    for name, run in runs.items():
        expected[name] = run.logits
        run.method.save(run.model, tmp_path / "saved" / name)
        assert torch.equal(run.logits, expected[name])  # saving leaves the model as it was
        _assert_same_format(run.method, tiny(), tmp_path / "saved" / name, tmp_path / "alone")
    tiny().save_pretrained(tmp_path / "base")
    script = tmp_path / "script.py"
    script.write_text(PEFT_ALONE)
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=300)
    found = load_file(tmp_path / "out")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def _assert_same_format(method: Qpa, base: Any, saved: Path, alone: Path) -> None:
    """What is saved has the tensors and the configuration that the inner method saves."""
    method.inner.save(method.inner.adapt(base, 3), alone)
    shapes, configs = [], []
    for folder in (saved, alone):
        tensors = load_file(folder / "adapter_model.safetensors")
        shapes.append({name: value.shape for name, value in tensors.items()})
        configs.append(json.loads((folder / "adapter_config.json").read_text()))
    assert shapes[0] == shapes[1]
    assert configs[0] == configs[1]


def test_a_loaded_model_has_no_generator(
    qpa: Any, train: Any, tiny: Any, tmp_path: Path, passes: Any
) -> None:
    run = train(qpa(), steps=2)
    run.method.save(run.model, tmp_path)
    expected = run.logits
    passes.clear()
    loaded = run.method.load(tiny(), tmp_path)
    with torch.no_grad():
        found = loaded(input_ids=torch.tensor([[5, 9, 2, 7, 11, 3]])).logits
    torch.testing.assert_close(found, expected[:1], rtol=0, atol=1e-6)
    assert passes == []
    assert run.method.trainable(loaded) == {}
    assert isinstance(loaded, PeftModel)
    assert type(run.method.merge(loaded)) is type(tiny())


def steps(method: Qpa, model: Any, ids: Any, number: int) -> list[float]:
    optimizer = torch.optim.SGD(method.trainable(model).values(), lr=1e-2)
    losses = []
    for _ in range(number):
        loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", [*KINDS, {"start": "paper"}])
def test_training_goes_on_from_a_folder(
    qpa: Any, kind: dict[str, Any], tiny: Any, ids: Any, tmp_path: Path
) -> None:
    method = qpa(**kind)
    model = method.adapt(tiny(), 7)
    steps(method, model, ids, 4)
    method.save(model, tmp_path)
    expected = steps(method, model, ids, 4)
    resumed = method.resume(tiny(), tmp_path)
    found = steps(method, resumed, ids, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected[-1] < expected[0]


def test_resume_refuses_what_does_not_fit(qpa: Any, tiny: Any, tmp_path: Path) -> None:
    method = qpa()
    method.save(method.adapt(tiny(), 7), tmp_path)
    with pytest.raises(BenchError, match="trained with depth=2, not 3"):
        qpa(depth=3).resume(tiny(), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    original = load_file(weights)
    changed = {name: value + 0.1 for name, value in original.items()}
    save_file(changed, weights)
    with pytest.raises(BenchError, match=r"does not reproduce the saved .*lora_A"):
        method.resume(tiny(), tmp_path)
    save_file({next(iter(original)): torch.zeros(1)}, tmp_path / "generator/generator.safetensors")
    with pytest.raises(BenchError, match="for another model"):
        method.resume(tiny(), tmp_path)
    (tmp_path / "generator/generator.safetensors").unlink()
    with pytest.raises(BenchError, match=r"generator.safetensors is missing"):
        method.resume(tiny(), tmp_path)
    Lora.from_settings({}).save(Lora.from_settings({}).adapt(tiny(), 1), tmp_path / "lora")
    with pytest.raises(BenchError, match="contains no generator to continue training from"):
        method.resume(tiny(), tmp_path / "lora")


def test_shots_are_noisy_and_say_so(
    qpa: Any, tiny: Any, ids: Any, train: Any, logits: Any, tmp_path: Path
) -> None:
    pytest.importorskip("pennylane")
    method = qpa(chunk=2048, depth=1, backend="pennylane:default.qubit", shots=20)
    run = train(method, steps=1)
    assert not method.exact_start
    with method.frozen(run.model):
        expected = logits(run.model)
        method.save(run.model, tmp_path)
    # Samples differ from pass to pass; inside the block, what is saved is what was evaluated.
    torch.testing.assert_close(logits(method.load(tiny(), tmp_path)), expected, rtol=0, atol=1e-6)
    losses = [float(run.model.train()(input_ids=ids, labels=ids).loss.detach()) for _ in range(4)]
    assert len(set(losses)) > 1
    method.resume(tiny(), tmp_path)


@pytest.mark.parametrize("generators", ["model", "module"])
@pytest.mark.parametrize("kind", ["krona", "loretta_adp", "mora", "parallel", "quanta", "series"])
def test_tuners_of_our_own(
    qpa: Any,
    kind: str,
    generators: str,
    train: Any,
    tiny: Any,
    logits: Any,
    tmp_path: Path,
) -> None:
    method = qpa(inner=kind, generators=generators)
    alone = method.inner.adapt(tiny(), 3)
    # To rounding: a tensor train's product depends on how its cores lie in memory.
    start = logits(method.adapt(tiny(), 3))
    torch.testing.assert_close(start, logits(alone), rtol=0, atol=1e-6)
    run = train(method, steps=5)
    expected = run.logits
    assert not torch.equal(expected, logits(alone))
    method.save(run.model, tmp_path)
    torch.testing.assert_close(logits(method.load(tiny(), tmp_path)), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits(method.resume(tiny(), tmp_path)), expected)
    if method.mergeable:
        found = logits(method.merge(run.model))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=5e-5)
