"""Result files in the layout of `peft`'s method comparison, with numbers of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def result(
    name: str = "lora/rank8",
    accuracy: float = 0.25,
    *,
    created: str = "2026-01-02T03:04:05+00:00",
    status: str = "success",
    peft_type: str | None = "LORA",
    **last: Any,
) -> dict[str, Any]:
    """What a file holds."""
    return {
        "run_info": {
            "created_at": created,
            "total_time": 1153.5,
            "experiment_name": name,
            "peft_branch": "main",
            "train_config": {"model_id": "some/base", "max_steps": 500, "seed": 0},
            "peft_config": None if peft_type is None else {"peft_type": peft_type, "r": 8},
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_reserved_avg": 10 * 2**30,
            "accelerator_memory_max": 20 * 2**30,
            "accelerator_memory_reserved_99th": 19 * 2**30,
            "train_time": 941.5,
            "file_size": 2**20,
            "num_trainable_params": 1000,
            "num_total_params": 100_000,
            "status": status,
            "metrics": [
                {"step": 250, "valid accuracy": 0.2, "train loss": 0.9, "train samples": 1000},
                {
                    "step": 500,
                    "test accuracy": accuracy,
                    "train loss": 0.7,
                    "train samples": 2000,
                    "train total tokens": 4321,
                    "forgetting": 0.05,
                    **last,
                },
            ],
        },
        "meta_info": {
            "model_info": {"sha": "0", "created_at": None},
            "dataset_info": {"metamath": {"sha": "1"}, "gsm8k": {"sha": "2"}},
            "package_info": {},
            "system_info": {"accelerator": "some card"},
            "pytorch_info": "",
        },
    }


def write(folder: Path, *results: dict[str, Any]) -> Path:
    """Write files, numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(results):
        (folder / f"{number}.json").write_text(json.dumps(content))
    return folder
