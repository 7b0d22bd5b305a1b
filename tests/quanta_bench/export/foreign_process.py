"""Load exported folders where none of this project's packages can be imported; write outputs.

An adapter of a type that peft does not know is loaded again after the import that its card names;
its name is printed, and what peft said before. A folder that cannot be loaded leaves a traceback.

Usage: python foreign_process.py FOLDER, which holds a folder each.
"""

from __future__ import annotations

import sys
import traceback
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

OURS = ("quanta_bench", "baselines", "tasks")


class Blocked:
    """Finds none of our packages, wherever they are installed."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def load(folder: Path) -> Any:
    """As a card says: `transformers` alone, or an adapter on the base that it names."""
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if not (folder / "adapter_config.json").is_file():
        head = "SequenceClassification" in (folder / "config.json").read_text()
        auto = AutoModelForSequenceClassification if head else AutoModelForCausalLM
        model, report = auto.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report
        return model
    config = PeftConfig.from_pretrained(folder)
    head = config.task_type == "SEQ_CLS"
    auto = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    base = auto.from_pretrained(config.base_model_name_or_path, dtype="float32")
    return PeftModel.from_pretrained(base, folder)


def write_logits(folder: Path) -> None:
    """Write what the folder's model computes for a text beside it."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)("Animal 3 of the list says", return_tensors="pt")
    with torch.no_grad():
        logits = load(folder).eval()(input_ids=ids["input_ids"]).logits
    save_file({"logits": logits.contiguous()}, folder.with_suffix(".safetensors"))


def main(root: Path) -> None:
    sys.meta_path.insert(0, Blocked)  # type: ignore[arg-type]
    import torch

    torch.set_num_threads(1)
    unknown = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        try:
            write_logits(folder)
        except KeyError as error:
            sys.stdout.write(f"{folder.name}:{error}\n")
            unknown.append(folder)
        except Exception:
            (root / f"{folder.name}.txt").write_text(traceback.format_exc())
    assert not {name.partition(".")[0] for name in sys.modules} & set(OURS)
    if unknown:
        sys.meta_path.remove(Blocked)  # type: ignore[arg-type]
        import quanta_bench.tuners  # noqa: F401
    for folder in unknown:
        write_logits(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
