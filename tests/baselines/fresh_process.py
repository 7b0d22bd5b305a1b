"""Load, in a process of its own, what `test_battery` saved; write outputs, or what went wrong.

Usage: python fresh_process.py FOLDER
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

IDS = torch.tensor([[5, 9, 2, 7, 11, 3], [8, 1, 6, 4, 10, 12]])


def reload(folder: Path, base: Path) -> None:
    where, config = (folder / "method.txt").read_text().split("\n", 1)
    module, _, kind = where.partition(":")
    method = getattr(importlib.import_module(module), kind).from_settings(json.loads(config))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    fresh = AutoModelForCausalLM.from_pretrained(base)
    model = method.load(fresh, folder / "adapter")
    assert torch.equal(state, torch.get_rng_state()), "loading moved the random state"
    assert not model.training, "not ready to evaluate"
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    save_file({"logits": logits.contiguous()}, folder / "output.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[1])
    for place in sorted(root.iterdir()):
        if place.name != "base":
            try:
                reload(place, root / "base")
            except Exception:
                (place / "error.txt").write_text(traceback.format_exc())
