"""A run's model as a folder that `peft` or `transformers` loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quanta_bench.errors import UsageError
from quanta_bench.export import card
from quanta_bench.export.stored import Form, StoredRun
from quanta_bench.models.embedded import converted_folder
from quanta_bench.models.loading import LoadedModel, ModelRef, load_tokenizer
from quanta_bench.models.quantised import dequantise, is_quantised
from quanta_bench.plugins import build_method, find_protocol
from quanta_bench.sources.names import read_words
from quanta_bench.utils.folders import is_taken, storage_errors, whole_folder
from quanta_bench.utils.quiet import quiet_libraries

if TYPE_CHECKING:
    from quanta_bench.method import Method

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Exported:
    """A folder that was written.

    Attributes:
        folder: the folder.
        form: how.
        files: its files with their sizes in bytes.
        base: the base model that an adapter needs; empty for a merged model.
    """

    folder: Path
    form: Form
    files: dict[str, int]
    base: str = ""


def choose_form(run: StoredRun, *, merged: bool = False, unmerged: bool = False) -> Form:
    """The form that a run is exported in, by default one that needs no package of ours.

    Args:
        run: the run.
        merged: ask for a merged model.
        unmerged: ask for the adapter as it is stored.

    Raises:
        UsageError: the run cannot have the form, or none of those that need no package of ours.
        BenchError: what was trained is not kept.
    """
    spec = run.result.training.spec
    if merged and unmerged:
        raise UsageError("--merged and --unmerged exclude each other: take one.")
    kind = adapter_type(run.adapter())
    if unmerged or (not merged and is_of_peft(kind)):
        if not kind:
            raise UsageError(
                f"The method {spec.method!r} saves no adapter of peft: leave out --unmerged."
            )
        return "adapter" if is_of_peft(kind) else "unmerged"
    mergeable = _method(run).mergeable
    if mergeable:
        return "merged"
    advice = {
        "": "It has no form that another library loads",
        kind: "--unmerged writes its adapter, which peft loads after `import quanta_bench.tuners`",
    }[kind]
    if is_of_peft(kind):
        advice = "without --merged, its adapter is written, which peft loads"
    raise UsageError(
        f"The method {spec.method!r} cannot be merged into the base's weights: "
        f"{mergeable.reason}. {advice[0].upper()}{advice[1:]}."
    )


def export(run: StoredRun, target: Path, form: Form) -> Exported:
    """Write a run's model, its tokenizer and a model card.

    Args:
        run: the run.
        target: the folder; it does not exist or is empty.
        form: of `choose_form`.

    Raises:
        UsageError: the folder has files.
        StorageError: it cannot be written.
        BenchError: the base model or what was trained cannot be loaded.
    """
    if is_taken(target):
        raise UsageError(f"{target} is there already and not empty: name a new folder.")
    base = "" if form == "merged" else base_model(run)
    with (
        storage_errors(target.parent, "Name another folder with --to."),
        # Resolved, because the whole folder is written beside it first.
        whole_folder(target.resolve()) as folder,
    ):
        if form == "merged":
            _write_merged(run, folder)
        else:
            _write_adapter(run, folder, base)
        card.write(run, folder, form, target.resolve().name, base)
    files = {
        path.relative_to(target).as_posix(): path.stat().st_size
        for path in sorted(target.rglob("*"))
        if path.is_file()
    }
    return Exported(target, form, files, base)


def adapter_type(folder: Path) -> str:
    """`peft`'s type of a saved adapter; empty if the folder holds none."""
    path = folder / CONFIG
    if not path.is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("peft_type") or "")


def is_of_peft(kind: str) -> bool:
    """Whether `peft` has a type itself, so that no other package has to register it."""
    from peft import PeftType

    return kind in {member.value for member in PeftType}


def base_model(run: StoredRun) -> str:
    """What ``from_pretrained`` loads a run's base model by: a name of the hub or a folder."""
    model = run.result.training.spec.model
    if model.source == "hub":
        return model.name
    if model.source == "embedded":
        return str(converted_folder())
    return str((read_words(model.source)[1] / model.name).resolve())


def _write_adapter(run: StoredRun, folder: Path, base: str) -> None:
    """The adapter's two files, naming the base where it is found, and the tokenizer."""
    model, stored = run.result.training.spec.model, run.adapter()
    config = json.loads((stored / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base
    config["revision"] = model.revision if model.source == "hub" else None
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    shutil.copy2(stored / WEIGHTS, folder / WEIGHTS)
    with quiet_libraries():
        load_tokenizer(_reference(run)).save_pretrained(folder)


def _write_merged(run: StoredRun, folder: Path) -> None:
    """The merged model in float32: in bfloat16, the merge would round most of an update away."""
    loaded = merged_model(run)
    with quiet_libraries():
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)


def merged_model(run: StoredRun) -> LoadedModel:
    """A run's base model in float32 with the update in its weights, as plain `transformers`.

    Raises:
        BenchError: the model or what was trained cannot be loaded, or cannot be merged.
    """
    method, adapter = _method(run), run.adapter()
    spec = run.result.training.spec
    protocol, reference = find_protocol(spec.protocol), _reference(run)
    loaded: LoadedModel = protocol.load(spec, reference, torch.float32)
    trained_in = getattr(torch, run.result.training.precision["base"])
    if is_quantised(loaded.model) and trained_in != torch.float32:
        # Few bits stand for other weights where they were made of others.
        loaded = protocol.load(spec, reference, trained_in)
    # The base is loaded with the suite's attention, which no other program has.
    own = loaded.model.config.get_text_config()._attn_implementation
    dequantise(loaded.model).float()
    model: Any = method.merge(method.load(loaded.model, adapter))
    if own not in ("sdpa", "eager"):
        model.set_attn_implementation("sdpa")
    _say_whether_tied(model)
    loaded.model = model
    return loaded


def _say_whether_tied(model: Any) -> None:
    """Let the configuration say that the output layer has weights of its own, if a merge gave it
    some: otherwise they would be replaced by the embeddings when the model is loaded.
    """
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
        model.config.get_text_config().tie_word_embeddings = False


def _reference(run: StoredRun) -> ModelRef:
    return ModelRef(**run.result.training.spec.model.model_dump())


def _method(run: StoredRun) -> Method[Any]:
    spec = run.result.training.spec
    return build_method(spec.method, spec.settings)
