"""The model that is scored: that of a finished run, or an exported folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.export.folder import CONFIG, WEIGHTS
from quanta_bench.export.stored import StoredRun
from quanta_bench.models.held_products import still
from quanta_bench.models.loading import LoadedModel, ModelRef, load_model
from quanta_bench.models.precision import arithmetic
from quanta_bench.plugins import build_method, find_protocol
from quanta_bench.spec import EvaluationSpec
from quanta_bench.utils.device import this_device
from quanta_bench.utils.quiet import quiet_libraries

if TYPE_CHECKING:
    from quanta_bench.method import Method

ITEMS = 200
"""Items of a task that a folder is scored on where no number is given, as `quanta-bench run`."""


@dataclass(frozen=True)
class Subject:
    """A model in memory and how it is scored.

    Attributes:
        name: for the user.
        model: the model, on its device, in evaluation mode.
        tokenizer: its tokenizer.
        spec: how our scorer scores it; its tasks are those of the run.
        cached: whether the model works with a key/value cache.
        precision: dtype of the base's weights, and of the arithmetic.
        run: the run, whose scores are stored; ``None`` for a folder.
        method: what keeps derived tensors while the weights stand still; ``None`` for a folder.
    """

    name: str
    model: Any
    tokenizer: Any
    spec: EvaluationSpec
    cached: bool
    precision: dict[str, str]
    run: StoredRun | None = None
    method: Method[Any] | None = None

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """The precision in which the run was scored, and weights that stand still."""
        with arithmetic(self.precision, this_device()):
            if self.method is None:
                yield
                return
            with still(self.method, self.model):
                yield


def of_run(run: StoredRun) -> Subject:
    """A run's model as it was scored, the adapter not merged.

    Raises:
        UsageError: it answers through a classification head, which lm-eval does not score.
        BenchError: what was trained is not kept, or cannot be loaded.
    """
    record, spec = run.result.training, run.result.training.spec
    protocol = find_protocol(run.result.evaluation.protocol)
    if not protocol.prompts:
        raise UsageError(
            f"The run {run.result.run} answers through a classification head, and "
            "lm-evaluation-harness scores language models: it cannot be its second scorer."
        )
    method = build_method(spec.method, spec.settings)
    adapter = run.adapter() if method.trains else None
    precision = run.result.evaluation_precision or record.precision
    reference = ModelRef(**spec.model.model_dump())
    loaded: LoadedModel = protocol.load(spec, reference, getattr(torch, precision["base"]))
    model: Any = loaded.model if adapter is None else method.load(loaded.model, adapter)
    return Subject(
        run.result.run,
        model.to(this_device()).eval(),
        loaded.tokenizer,
        run.result.evaluation,
        bool(method.cacheable),
        precision,
        run,
        method,
    )


def of_folder(folder: Path, source: str) -> Subject:
    """An exported folder: a plain model, or an adapter with the base that it names.

    Args:
        folder: the folder.
        source: where our tasks' items come from.

    Raises:
        UsageError: the folder holds neither.
        SourceError: the model or its base cannot be loaded.
    """
    is_adapter = (folder / CONFIG).is_file()
    if not is_adapter and not (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} is neither a finished run nor a model: it has no result.json, no "
            f"config.json and no {CONFIG}."
        )
    local = ModelRef(name=".", source=f"local:{folder}")
    loaded = _adapted(folder) if is_adapter else load_model(local, torch.float32)
    return Subject(
        str(folder),
        loaded.model.to(this_device()).eval(),
        loaded.tokenizer,
        EvaluationSpec(tasks=(), source=source, items=ITEMS),
        not is_adapter,
        {"base": "float32", "arithmetic": "32-true"},
    )


def _adapted(folder: Path) -> LoadedModel:
    """The base that an adapter names, with the adapter; ours are known to `peft` too."""
    from peft import PeftModel

    import quanta_bench.tuners  # noqa: F401

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    base = str(config.get("base_model_name_or_path") or "")
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder} has no {WEIGHTS}, the one form of weights that is read.")
    if config.get("task_type") == "SEQ_CLS":
        raise UsageError(f"The adapter in {folder} has a classification head: lm-eval has none.")
    if not base:
        raise UsageError(f"The adapter in {folder} does not name its base model.")
    at_hand = Path(base).is_dir()
    reference = (
        ModelRef(name=".", source=f"local:{base}")
        if at_hand
        else ModelRef(name=base, source="hub", revision=config.get("revision") or "main")
    )
    loaded = load_model(reference, torch.float32)
    try:
        with quiet_libraries():
            loaded.model = PeftModel.from_pretrained(loaded.model, str(folder))
    except (KeyError, ValueError, RuntimeError) as error:
        raise BenchError(f"peft cannot load the adapter in {folder}: {error}") from error
    return loaded
