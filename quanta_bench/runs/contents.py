"""Whether stored results are of what lies now at the places that specs name.

Results that are matched by their specs know a folder or file of the user's own by the last part of
its path, and two models may lie in folders of one name. So where such a place can be read without
downloading anything, its content is compared with what the result was computed from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from quanta_bench.data.pools import Pools
from quanta_bench.errors import BenchError
from quanta_bench.models.loading import ModelRef, unchecked_fingerprint
from quanta_bench.plugins import find_task
from quanta_bench.references import portable_task, reads_own_file
from quanta_bench.results.failures import Failure
from quanta_bench.results.records import Result
from quanta_bench.runs.identity import PlannedRun
from quanta_bench.runs.places import LOCAL
from quanta_bench.sources.names import read_words
from quanta_bench.task import Split

Read = tuple[str, str, Split]
"""A task, its source and the split of it that is read."""


class Contents:
    """What lies at the places of specs; each is read once.

    Attributes:
        compared: the places that were read.
        unread: the places that cannot be read; these match by the last part of their path.
        changed: the places that hold something else than what a stored run with the same specs was
            computed from.
    """

    def __init__(self) -> None:
        self.compared: set[str] = set()
        self.unread: set[str] = set()
        self.changed: set[str] = set()
        self._pools = Pools()
        self._models: dict[ModelRef, str | None] = {}
        self._data: dict[Read, dict[str, Any] | None] = {}

    def is_of(self, planned: PlannedRun, result: Result) -> bool:
        """Whether a result with a run's specs is of its model and data, as far as is known."""
        record = result.training
        scored = {
            **{task: of_task.data for task, of_task in result.tasks.items()},
            **result.forgetting_data,
        }
        return self._same(planned, record.model_fingerprint, record.data, scored)

    def failed(self, planned: PlannedRun, failure: Failure) -> bool:
        """Whether a failure with a run's specs is of its model and data, as far as is known."""
        return self._same(planned, failure.model, failure.training_data, failure.evaluation_data)

    def _same(
        self,
        planned: PlannedRun,
        model: str,
        training_data: Mapping[str, Any],
        evaluation_data: Mapping[str, Any],
    ) -> bool:
        """Compare with the fingerprints of a run; those that it does not have match everything."""
        changed = set()
        place = _model_place(planned)
        if place and model and self._model(planned.model, place) not in (None, model):
            changed.add(place)
        known = _by_bare_names(training_data, with_split=True)
        known |= _by_bare_names(evaluation_data, with_split=False)
        for name, (task, source, split) in _reads(planned):
            if (place := _data_place(task, source)) is None or not known.get(name):
                continue
            here = self._content((task, source, split), place)
            # Two files of one run may have the same bare name.
            if here and not any(_is_same(here, stored, task) for stored in known[name]):
                changed.add(place)
        self.changed |= changed
        return not changed

    def _model(self, ref: ModelRef, place: str) -> str | None:
        """The content hash of a model; ``None`` if it cannot be read."""
        if ref not in self._models:
            try:
                self._models[ref] = unchecked_fingerprint(ref)
            except (BenchError, OSError):
                self._models[ref] = None
            self._note(place, read=self._models[ref] is not None)
        return self._models[ref]

    def _content(self, read: Read, place: str) -> dict[str, Any] | None:
        """What stands for the data of a task in names of runs; ``None`` if it cannot be read."""
        if read not in self._data:
            task, source, _ = read
            try:
                # The rows of a mapping may be the hub's, and nothing is downloaded here.
                elsewhere = find_task(task).reads_source and read_words(source)[0] != LOCAL
                self._data[read] = None if elsewhere else self._pools.get(*read).identity
            except (BenchError, OSError):
                self._data[read] = None
            self._note(place, read=self._data[read] is not None)
        return self._data[read]

    def _note(self, place: str, *, read: bool) -> None:
        (self.compared if read else self.unread).add(place)


def others_in(places: Collection[str]) -> str:
    """That runs of other content than lies at some places are left out."""
    return (
        "Runs with the same specs are stored that were computed from another model or other data "
        f"than those now in {', '.join(sorted(places))}; they are left out."
    )


def _model_place(planned: PlannedRun) -> str | None:
    model = planned.training.model
    if not model.source.startswith(f"{LOCAL}:"):
        return None
    return model.source if model.name == "." else f"{model.source}/{model.name}"


def _data_place(task: str, source: str) -> str | None:
    if reads_own_file(task):
        return task
    return source if source.startswith(f"{LOCAL}:") else None


def _reads(planned: PlannedRun) -> Iterator[tuple[str, Read]]:
    """What a run reads, by the bare names under which `_by_bare_names` has its fingerprints."""
    training, scoring = planned.training, planned.evaluation
    splits: tuple[Split, ...] = ("train", "validation")
    for task in training.tasks:
        for split in splits:
            yield f"{portable_task(task)}/{split}", (task, training.source, split)
    for task in scoring.tasks:
        yield portable_task(task), (task, scoring.source, scoring.split)
    if scoring.forgetting:
        text = scoring.forgetting
        yield portable_task(text), (text, scoring.forgetting_source, "test")


def _by_bare_names(data: Mapping[str, Any], *, with_split: bool) -> dict[str, list[Any]]:
    """Fingerprints by tasks without the folders of their files, and splits."""
    found: dict[str, list[Any]] = {}
    for name, content in data.items():
        task, slash, split = name.rpartition("/") if with_split else (name, "", "")
        found.setdefault(f"{portable_task(task)}{slash}{split}", []).append(content)
    return found


def _is_same(here: Mapping[str, Any], stored: Mapping[str, Any], task: str) -> bool:
    """Whether data are the same: rows, and the templates of a user's own mapping.

    Another version of the suite's templates makes a result stale, which tables mark.
    """
    keys = ("content", "template") if reads_own_file(task) else ("content",)
    return all(here.get(key) == stored.get(key) for key in keys)
