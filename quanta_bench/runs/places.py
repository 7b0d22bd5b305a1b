"""Runs without the places that they name on this machine: folders of models and of data, files.

What lies at a place enters a run's name by its content. So a folder that was moved, or is named
from another working directory, leaves a run's name as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from quanta_bench.references import last_part, portable_task, reads_own_file
from quanta_bench.results.integrity import sealed
from quanta_bench.results.records import Result, TrainingRecord
from quanta_bench.results.store import Store
from quanta_bench.spec import EvaluationSpec, ModelSpec, TrainingSpec, canonical

LOCAL = "local"

Spec = TypeVar("Spec", TrainingSpec, EvaluationSpec)


def without_places(spec: Spec) -> Spec:
    """A spec as it enters a run's name: ``local`` for each folder, the bare names of files.

    One that names no place is returned as it is.
    """
    return _placed(spec, lambda folder: "")


def by_last_names(spec: Spec) -> Spec:
    """A spec with the last part of each place, to match results without reading any content."""
    return _placed(spec, last_part)


def names_places(spec: TrainingSpec | EvaluationSpec) -> bool:
    """Whether a spec names a place of the user's own."""
    tasks, sources = [*spec.tasks], [spec.source]
    if isinstance(spec, EvaluationSpec):
        tasks.append(spec.forgetting)
        sources.append(spec.forgetting_source)
    else:
        sources.append(spec.model.source)
    return any(source.startswith(f"{LOCAL}:") for source in sources) or any(
        map(reads_own_file, tasks)
    )


def specs_key(training: TrainingSpec, evaluation: EvaluationSpec) -> str:
    """Equal for runs with the same specs, whichever tasks their source had, and wherever that was.

    Of folders and files the last part of the name counts, as no content is read.
    """
    return canonical(
        [
            by_last_names(training).model_dump(mode="json"),
            by_last_names(evaluation).model_dump(mode="json", exclude={"tasks"}),
        ]
    )


def portable_data(spec: TrainingSpec | EvaluationSpec, data: dict[str, Any]) -> Any:
    """What stands for the data of a spec in a run's name.

    Args:
        spec: the spec.
        data: by task, or task and split, in order. Two files may have the same bare name.
    """
    return bare_data(spec, data) if names_places(spec) else data


def bare_data(spec: TrainingSpec | EvaluationSpec, data: Mapping[str, Any]) -> list[list[Any]]:
    """Data by the bare names of files, in order; see `portable_data`."""
    if isinstance(spec, EvaluationSpec):
        return [[portable_task(task), content] for task, content in data.items()]
    found = []
    for name, content in data.items():
        task, slash, split = name.rpartition("/")
        found.append([f"{portable_task(task)}{slash}{split}", content])
    return found


def relocated(result: Result, training: TrainingSpec, evaluation: EvaluationSpec) -> Result:
    """A stored result with the places of the specs by which it was found.

    Args:
        result: the result; its specs differ from the others in places alone.
        training: the training spec, as it is asked for now.
        evaluation: the evaluation spec.
    """
    if result.training.spec == training and result.evaluation == evaluation:
        return result
    names = dict(zip(result.evaluation.tasks, evaluation.tasks, strict=True))
    names[result.evaluation.forgetting] = evaluation.forgetting
    return result.model_copy(
        update={
            "training": relocated_training(result.training, training),
            "evaluation": evaluation,
            "tasks": {names.get(name, name): scored for name, scored in result.tasks.items()},
            "forgetting": {names.get(n, n): value for n, value in result.forgetting.items()},
            "forgetting_data": {names.get(n, n): v for n, v in result.forgetting_data.items()},
        }
    )


def relocated_training(record: TrainingRecord, spec: TrainingSpec) -> TrainingRecord:
    """A stored training with the places of the spec by which it was found, and hashes of that."""
    if record.spec == spec:
        return record
    names = dict(zip(record.spec.tasks, spec.tasks, strict=True))
    data = {}
    for name, content in record.data.items():
        task, slash, split = name.rpartition("/")
        data[f"{names.get(task, task)}{slash}{split}"] = content
    return sealed(record.model_copy(update={"spec": spec, "data": data}))


def judged_items(result: Result, store: Store) -> list[dict[str, Any]] | None:
    """The judged items of a run under the names that its tasks have in a result.

    ``None`` where they are not stored.

    Raises:
        DamagedError: they are not what was written.
    """
    lines, stored = store.predictions(result.run), store.result(result.run)
    if lines is None or stored is None or list(stored.tasks) == list(result.tasks):
        return lines
    names = dict(zip(stored.tasks, result.tasks, strict=True))
    return [{**line, "task": names.get(line["task"], line["task"])} for line in lines]


def _placed(spec: Spec, folder_name: Callable[[str], str]) -> Spec:
    def source(text: str) -> str:
        kind, colon, folder = text.partition(":")
        if kind != LOCAL or not colon:
            return text
        return f"{LOCAL}:{name}" if (name := folder_name(folder)) else LOCAL

    changes: dict[str, Any] = {
        "tasks": tuple(map(portable_task, spec.tasks)),
        "source": source(spec.source),
    }
    if isinstance(spec, EvaluationSpec):
        changes["forgetting"] = portable_task(spec.forgetting)
        changes["forgetting_source"] = source(spec.forgetting_source)
    elif spec.model.source.startswith(f"{LOCAL}:"):
        folder = f"{spec.model.source.partition(':')[2]}/{spec.model.name}"
        last = folder_name(folder)
        changes["model"] = ModelSpec(
            name=".", source=f"{LOCAL}:{last}" if last else LOCAL, revision=spec.model.revision
        )
    changed = spec.model_copy(update=changes)
    return spec if changed == spec else changed
