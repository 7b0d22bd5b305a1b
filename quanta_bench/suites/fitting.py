"""Rows on a model other than the suite's: what does not fit its layers is replaced.

A row that names LLaMA's layers gets their counterparts (:mod:`quanta_bench.models.targets`).
QuanTA's axes must multiply to a layer's width, and KronA's side must divide it, so a row made for
one width is refused on another. Such a row gets the size of its method whose trainable share of the
base's parameters is nearest to the original.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from quanta_bench.errors import BenchError, UsageError
from quanta_bench.models.meta import configuration_digest, meta_model
from quanta_bench.models.nearest import count_on, nearest_size
from quanta_bench.models.targets import as_llama, module_names, with_counterparts
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.results.provenance import source_hash
from quanta_bench.spec import canonical
from quanta_bench.suites.overrides import relabelled, short_form
from quanta_bench.suites.schema import RowSpec
from quanta_bench.utils.remembered import code_here, remembered

CHOSEN = "chosen for the width of this model"
FOUND = "found for this model"
"""The origin of a setting that was chosen here."""

FOLDER = "fits"
"""In the cache folder: what was found to fit a model, as counting takes seconds."""


@dataclass(frozen=True)
class Fitted:
    """A row for a model.

    Attributes:
        row: the row, with settings that fit.
        note: what was replaced by what; empty if the row is unchanged.
    """

    row: RowSpec
    note: str = ""


def fitted(row: RowSpec, model: str, original: str, kept: Collection[str] = ()) -> Fitted:
    """A row whose settings fit a model.

    Args:
        row: the row, its settings filled in.
        model: the model it will run on, as :func:`quanta_bench.models.meta.meta_model` takes it.
        original: the model that the row was written for.
        kept: names of settings that the user gave; these are never replaced.

    Raises:
        UsageError: the settings do not fit, and no size of the method does.
    """
    try:
        module_names(model)
    except UsageError:
        if model.startswith("local:"):
            raise  # its configuration is missing or unreadable
        # A hub model has its configuration there; whether the row fits shows when it is loaded.
        return Fitted(row)
    except BenchError:
        return Fitted(row)  # what is wrong with the folder shows when it is loaded
    written = row
    row, found = _with_targets(row, model, kept)
    label = written.label
    reason = _refusal(model, row)
    if not reason:
        return Fitted(row, _found_note(label, written, found))
    settings = _nearest_settings(row, model, written, original, found, kept)
    if settings is None:
        raise UsageError(f"{row.label}: {reason}")
    changed = {
        name: value
        for name, value in settings.items()
        if canonical(value) != canonical(row.settings.get(name))  # a tuple is a list there
    }
    settings = {**row.settings, **changed}
    label = relabelled(row.label, row.settings, settings)
    note = (
        f"{label}: {_listed(changed)} instead of {_listed(row.settings, changed)}, which "
        "does not fit this model; of the sizes that fit, its trainable share is nearest."
    )
    row = row.model_copy(
        update={
            "settings": settings,
            "label": label,
            "origin": {**row.origin, **dict.fromkeys(changed, CHOSEN)},
            "printed": "",
            "ambiguity": "",
        }
    )
    return Fitted(row, " ".join(filter(None, (_found_note(label, written, found), note))))


def with_targets(row: RowSpec, model: str, kept: Collection[str] = ()) -> Fitted:
    """A row that adapts layers which a model has; its sizes stay.

    Args:
        row: the row, its settings filled in.
        model: the model, as :func:`quanta_bench.models.meta.meta_model` takes it; one that is not
            known leaves the row as it is.
        kept: names of settings that the user gave.
    """
    try:
        changed, found = _with_targets(row, model, kept)
    except BenchError:
        return Fitted(row)
    return Fitted(changed, _found_note(row.label, row, found))


def _with_targets(
    row: RowSpec, model: str, kept: Collection[str]
) -> tuple[RowSpec, dict[str, Any]]:
    """A row with the counterparts of the layers that it names, and the settings that changed."""
    found = {
        name: value
        for name, value in with_counterparts(model, _complete(row)).items()
        if name not in kept
    }
    if not found:
        return row, {}
    update = {
        "settings": {**row.settings, **found},
        "origin": {**row.origin, **dict.fromkeys(found, FOUND)},
        "printed": "",
        "ambiguity": "",
    }
    return row.model_copy(update=update), found


def _complete(row: RowSpec) -> dict[str, Any]:
    """A row's settings with its method's defaults."""
    try:
        config = build_method(row.method, row.settings).config
    except BenchError:
        return dict(row.settings)  # what is wrong with them is said where the row is planned
    return {**config.model_dump(mode="python"), **row.settings}


def _found_note(label: str, row: RowSpec, found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    before = _complete(row)
    listed = (
        f"{name}={short_form(value)} instead of {short_form(before.get(name))}"
        for name, value in found.items()
    )
    return f"{label}: {', '.join(listed)}, which this model does not have."


def check_fits(row: RowSpec, model: str) -> None:
    """Refuse settings that do not fit a model, before anything is loaded.

    Raises:
        UsageError: says why; a model whose configuration is not here passes.
    """
    try:
        module_names(model)
    except BenchError:
        return
    reason = _refusal(model, row)
    if reason:
        raise UsageError(f"{row.label}: {reason}")


def _refusal(model: str, row: RowSpec) -> str:
    """Why a row's method refuses a model; empty if it does not."""
    # A classification head exists only once the model is loaded, and does not depend on widths.
    settings = {key: value for key, value in row.settings.items() if key != "modules_to_save"}

    def compute() -> str:
        try:
            count_on(model, row.method, settings)
        except UsageError as error:
            return str(error)
        except BenchError:
            # It cannot be counted without weights; whether it fits shows when the model is loaded.
            return ""
        return ""

    if row.method not in METHODS:
        return compute()
    return remembered(FOLDER, ("refusal", *_depends(model, row.method, settings)), compute)


def _nearest_settings(
    row: RowSpec,
    model: str,
    written: RowSpec,
    original: str,
    found: Mapping[str, Any],
    kept: Collection[str],
) -> dict[str, Any] | None:
    """The settings of the size of a row's method that is nearest on a model.

    Args:
        row: the row, which does not fit.
        model: the model.
        written: the row as it was written for the original model.
        original: that model.
        found: the layers that `row` names in place of those of `written`.
        kept: names of settings that stay.

    Returns:
        ``None`` if no size fits.
    """

    def compute() -> dict[str, Any] | None:
        share = _share(original, written)
        base = as_llama(model, found) if found else meta_model(model)
        sizes = [
            {**row.settings, **size}
            for size in METHODS.get(row.method).sizes(base)
            if not set(size) & set(kept)
        ]
        # If the original share is unknown, take the smallest size.
        nearest = nearest_size(
            model,
            row.method,
            sizes,
            lambda count: count.of_base / share if share else 1 + count.of_base,
        )
        return None if nearest.count is None else nearest.settings

    try:
        of_original = configuration_digest(original)
    except BenchError:
        of_original = ""
    parts = (
        *("size", *_depends(model, row.method, row.settings)),
        *(of_original, canonical(written.settings), canonical(found), canonical(sorted(kept))),
    )
    return remembered(FOLDER, parts, compute)


def _depends(model: str, method: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """What decides whether a method's settings fit a model."""
    source = source_hash(METHODS.module(method))
    return configuration_digest(model), method, canonical(settings), source, code_here()


def _share(model: str, row: RowSpec) -> float | None:
    """The share of the base's parameters that a row trains on the suite's own model."""
    try:
        return count_on(model, row.method, row.settings).of_base or None
    except BenchError:
        return None


def _listed(settings: Mapping[str, Any], names: Collection[str] | None = None) -> str:
    shown = settings if names is None else {name: settings.get(name) for name in names}
    return ", ".join(f"{name}={short_form(value)}" for name, value in shown.items())
