"""Run with the branch's `peft`: load this project's adapters, write others, run tests.

Usage: python branch_process.py ROOT WORD...

ROOT holds a folder a case, with the base model in ``base``, this project's adapter in ``adapter``
and token ids in ``ids.safetensors``. For each case it writes ``outputs.safetensors``, the logits of
that adapter, as it is and merged, and of a new one, which it saves in ``theirs``. The status is
that of pytest with these words.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, QuantaConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


@torch.no_grad()
def answer(folder: Path) -> None:
    ids = load_file(folder / "ids.safetensors")["ids"]

    def base() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(folder / "base").eval()

    ours = PeftModel.from_pretrained(base(), folder / "adapter")
    outputs = {"ours": ours(ids).logits}
    outputs["merged"] = ours.merge_and_unload()(ids).logits
    saved = QuantaConfig.from_pretrained(folder / "adapter")
    config = QuantaConfig(
        dims=saved.dims,
        rectangular=saved.rectangular,
        target_modules=saved.target_modules,
        init_weights=False,
    )
    torch.manual_seed(0)
    theirs = get_peft_model(base(), config).eval()
    theirs.save_pretrained(folder / "theirs")
    outputs["theirs"] = theirs(ids).logits
    outputs["base"] = base()(ids).logits
    save_file(outputs, folder / "outputs.safetensors")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir()):
            answer(case)
    assert not {"baselines", "quanta_bench"} & sys.modules.keys()
    sys.exit(pytest.main(sys.argv[2:]))
