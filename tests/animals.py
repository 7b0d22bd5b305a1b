"""A user's own data and suite: animals and what they say, a base and LoRA, two seeds."""

from __future__ import annotations

import json
from pathlib import Path

SUITE = """
name: animals
title: Animals
tasks: ["jsonl:{data}"]
profiles:
  embedded:
    model: .
    model_source: "local:{model}"
    seeds: [0, 1]
    training: {{batch_size: 4, validations: 2, precision: float32}}
    rows:
      - none
      - {{method: lora, label: LoRA, settings: {{r: 2}}, training: {{{training}}}}}
"""


def write_data(folder: Path, *, train: int = 16, validation: int = 4, test: int = 8) -> Path:
    """Write rows of each split as JSON lines."""
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    says = ["moo", "meow", "quack"]
    rows = [
        {
            "prompt": f"Animal {n} of the list says",
            "choices": says,
            "answer": says[n % 3],
            "split": split,
        }
        for n, split in enumerate(splits)
    ]
    path = folder / "animals.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_suite(folder: Path, data: Path, model: Path, *, training: str = "") -> Path:
    """Write the suite; `training` is YAML for LoRA's row, such as ``learning_rate: 0.003``."""
    path = folder / "animals.yaml"
    path.write_text(SUITE.format(data=data, model=model, training=training))
    return path
