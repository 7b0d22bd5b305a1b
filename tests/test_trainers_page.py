"""The programs of docs/trainers.md: our tuners under trainers that know nothing of them."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer

PAGE = (ROOT / "docs" / "trainers.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.M | re.S))
QUANTA = (
    "from baselines.quanta import QuantaConfig",
    'config = QuantaConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")',
)
OTHERS = re.findall(r"^```python\n(from \S+ import \w+)\n\n(config = .*)\n```$", PAGE, re.M)
CONFIGS = {line.split()[-1]: (line, made) for line, made in (QUANTA, *OTHERS)}
NAME = '"HuggingFaceTB/SmolLM2-135M-Instruct"'


def test_the_page_has_two_programs_and_three_configurations() -> None:
    assert set(PROGRAMS) == {"with_trainer.py", "with_trl.py"}
    assert set(CONFIGS) == {"QuantaConfig", "KronaConfig", "MoraConfig"}
    assert all(line in text for text in PROGRAMS.values() for line in (*QUANTA, NAME))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("program", PROGRAMS)
# Trainer's loader pins memory where there is a GPU to send it to, and warns where there is none.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
# TRL asks transformers for recomputation by its former name.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing.*` is deprecated:FutureWarning")
def test_it_trains_saves_and_merges(
    program: str, config: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program == "with_trl.py":
        pytest.importorskip("trl")
    text = PROGRAMS[program].replace(NAME, repr(str(tiny_model)))
    for old, new in zip(QUANTA, CONFIGS[config], strict=True):
        text = text.replace(old, new)
    # A larger rate, since a random model has far to go.
    text = text.replace("learning_rate=1e-3", "learning_rate=1e-2, use_cpu=True")
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(ast.parse(text), program, "exec"), scope)

    losses = [entry["loss"] for entry in scope["trainer"].state.log_history if "loss" in entry]
    assert len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])
    trained = {n for n, p in scope["trainer"].model.named_parameters() if p.requires_grad}
    assert trained
    assert all("q_proj" in name or "v_proj" in name for name in trained)

    saved = json.loads(Path("adapter/adapter_config.json").read_text())
    assert saved["peft_type"] == config.removesuffix("Config").upper()
    # The folder is a plain model with the outputs of the trained one, not those of the base.
    ids = AutoTokenizer.from_pretrained(tiny_model)("7 + 8 =", return_tensors="pt")["input_ids"]
    model = scope["trainer"].model.eval()
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained("merged")(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(tiny_model)(input_ids=ids).logits
    torch.testing.assert_close(merged, expected, rtol=1e-3, atol=1e-4)
    assert (expected - base).abs().max() > 1e-2
