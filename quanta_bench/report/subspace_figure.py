"""Heat maps of subspace similarity and spectra of trained runs (paper, Figures 2, A.1, A.2).

Layers are counted from 0, as in the modules' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quanta_bench.errors import BenchError, UsageError, did_you_mean
from quanta_bench.plugins import METHODS, build_method
from quanta_bench.report.figure import Drawn, Number, Numbers, Picture
from quanta_bench.report.screen_notes import CAVEATS, SCORES, TRAINING
from quanta_bench.report.tables import make_table
from quanta_bench.suites.grid import GridRow
from quanta_bench.suites.request import Request

if TYPE_CHECKING:
    from torch import Tensor

    from quanta_bench.report.plots import Panel
    from quanta_bench.report.subspace import Spectrum
    from quanta_bench.results.records import Result
    from quanta_bench.results.store import Store
    from quanta_bench.runs.cells import Cells

HEADER = ("module", "first", "second", "i", "j", "similarity")
SHORT = (
    "module",
    "first",
    "second",
    "vectors_first",
    "vectors_second",
    "similarity_of_all",
    "mean_similarity",
    "mean_by_chance",
    "effective_rank_first",
    "effective_rank_second",
)


@dataclass(frozen=True)
class Comparison:
    """What to compare.

    Attributes:
        pairs: pairs of row labels.
        modules: names of modules.
        vectors: maximum number of singular vectors compared.
        notes: why pairs of the suite are left out.
    """

    pairs: tuple[tuple[str, str], ...]
    modules: tuple[str, ...]
    vectors: int
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the rows needed, without duplicates."""
        return tuple(dict.fromkeys(label for pair in self.pairs for label in pair))


def choose(request: Request) -> Comparison:
    """The comparisons of a profile for which both rows are selected and can be merged.

    Raises:
        UsageError: the suite names no comparison or an unknown row, or no comparison remains.
    """
    drawing = request.suite.figure
    name = request.profile_name
    if drawing is None or not (drawing.pairs.get(name) and drawing.modules.get(name)):
        raise UsageError(
            f"{request.suite.name} names no pairs or no modules for the profile {name!r}."
        )
    # A pair names its rows as the suite does; on another model, or with `--set`, a row's label has
    # other sizes.
    rows = {row.written: row for row in request.grid}
    known = {row.label for row in request.profile.rows} | set(rows)
    pairs: list[tuple[str, str]] = []
    notes = []
    for first, second in drawing.pairs[name]:
        reasons = [_reason(label, rows, known) for label in (first, second)]
        obstacles = [reason for reason in reasons if reason]
        if obstacles:
            listed = "; ".join(dict.fromkeys(obstacles))
            notes.append(f"{first} and {second} are not compared: {listed}")
        else:
            pairs.append((rows[first].spec.label, rows[second].spec.label))
    if not pairs:
        raise UsageError(f"{request.suite.name}: nothing is left to compare. {' '.join(notes)}")
    return Comparison(tuple(pairs), drawing.modules[name], drawing.vectors, tuple(notes))


def check_modules(request: Request, chosen: Comparison) -> None:
    """Refuse modules that a model does not have, before anything is trained.

    A hub model whose configuration is not shipped is checked when it is loaded.

    Raises:
        UsageError: the model has no such module; the message suggests similar names.
    """
    from quanta_bench.models.meta import hub_name, known_models, meta_model
    from quanta_bench.report import subspace

    shipped = {*known_models(), *map(hub_name, known_models())}
    needed = [row.model for row in request.grid if row.spec.label in chosen.labels]
    for model in dict.fromkeys(needed):
        local = model.source.startswith("local:")
        name = f"{model.source}/{model.name}" if local else model.name
        if local or name in shipped:
            bare = meta_model(name)
            for module in chosen.modules:
                try:
                    subspace.matrix_of(bare, module)
                except UsageError as error:
                    suite = request.suite.name
                    raise UsageError(
                        f"{error} {suite} compares weights by name; for another model list its "
                        f"own under `modules` in a copy of {suite}.yaml."
                    ) from None


def _reason(label: str, rows: dict[str, GridRow], known: set[str]) -> str:
    """Why a row cannot be compared; empty if it can."""
    if label not in known:
        raise UsageError(f"The figure has no row {label!r}. {did_you_mean(label, known)}")
    if label not in rows:
        return f"{label} is not selected."
    row = rows[label]
    if row.missing:
        return f"{row.missing}."
    if not METHODS.get(row.spec.method).trains:
        return f"{label} changes no weight."
    mergeable = build_method(row.spec.method, row.spec.settings).mergeable
    return "" if mergeable else f"{label} cannot be merged into the weights: {mergeable.reason}."


@dataclass(frozen=True)
class RunSpectra:
    """One run's updates, by module.

    Attributes:
        seed: the run's seed.
        model: description of the base model.
        spectra: by module, without vectors that are only rounding error.
    """

    seed: int
    model: str
    spectra: dict[str, Spectrum]


def draw(request: Request, cells: Sequence[Cells], store: Store) -> Drawn:
    """Draw heat maps and spectra of the finished runs, using each row's first seed.

    Raises:
        UsageError: the model has no such module.
        BenchError: a method refuses to merge, or no comparison has both its runs.
    """
    from quanta_bench.report import plots, subspace

    chosen = choose(request)
    runs: dict[str, RunSpectra] = {}
    for cell in cells:
        if cell.results:
            seed = min(cell.results)
            runs[cell.row.spec.label] = _run_spectra(cell.results[seed][0], seed, store, chosen)
    caveats = list(chosen.notes)
    panels: list[Panel] = []
    numbers: list[tuple[Number, ...]] = []
    short: list[tuple[Number, ...]] = []
    # One map of random spans per pair, shown below the pair's modules.
    random: dict[tuple[str, str, int], Panel] = {}
    for module in chosen.modules:
        for first, second in chosen.pairs:
            if first not in runs or second not in runs:
                continue
            left, right = runs[first].spectra[module], runs[second].spectra[module]
            if not len(left.values) or not len(right.values):
                unchanged = " and ".join(
                    label
                    for label in (first, second)
                    if not len(runs[label].spectra[module].values)
                )
                caveats.append(f"{module}: not changed by {unchanged}, so nothing is compared.")
                continue
            vectors = chosen.vectors
            values = subspace.similarity(left.right[:, :vectors], right.right[:, :vectors])
            panels.append(plots.Panel(_short(module), values, first, second))
            numbers += _entries(module, first, second, values)
            short.append(_summary(module, first, second, values, left, right))
            width = len(left.right)
            random[first, second, width] = plots.Panel(
                f"random spans in {width:,} dimensions",
                subspace.by_chance_each(values.shape[0], values.shape[1], width),
                first,
                second,
            )
    if not panels:
        raise BenchError(
            f"{request.suite.name}: no comparison has both its runs. {' '.join(caveats)}".strip()
        )
    name = make_table(request, cells, store).name
    model = next(iter(runs.values())).model
    maps = plots.heat_maps(
        [*panels, *random.values()],
        across=len(dict.fromkeys((panel.rows, panel.columns) for panel in panels)),
        title=f"{request.suite.title}\n{model}, {_seeds(runs)}",
    )
    return Drawn(
        request.suite.title,
        [
            Picture(name, maps, Numbers(HEADER, numbers)),
            _spectra(f"{name}-spectra", runs, chosen, model),
        ],
        Numbers(SHORT, short),
        _notes(request, runs, caveats),
    )


def _run_spectra(result: Result, seed: int, store: Store, chosen: Comparison) -> RunSpectra:
    import torch

    from quanta_bench.models.loading import ModelRef, load_model
    from quanta_bench.models.quantised import dequantise
    from quanta_bench.report import subspace

    spec = result.training.spec
    # Merging into bfloat16 would round the update away.
    base = load_model(ModelRef(**spec.model.model_dump()), torch.float32)
    updates = subspace.updates(
        build_method(spec.method, spec.settings),
        dequantise(base.model),
        store.run_folder(result.run) / "adapter",
        chosen.modules,
    )
    spectra = {module: update.spectrum() for module, update in updates.items()}
    return RunSpectra(seed, result.training.model, spectra)


def _entries(module: str, first: str, second: str, values: Tensor) -> list[tuple[Number, ...]]:
    """The plotted entries, those with i <= j."""
    return [
        (module, first, second, i, j, value)
        for i, row in enumerate(values.tolist(), start=1)
        for j, value in enumerate(row, start=1)
        if i <= j
    ]


def _summary(
    module: str, first: str, second: str, values: Tensor, left: Spectrum, right: Spectrum
) -> tuple[Number, ...]:
    from quanta_bench.report.subspace import by_chance

    width = len(left.right)
    rows, columns = values.shape
    entries = [(i, j) for i in range(rows) for j in range(i, columns)]
    count = max(1, len(entries))
    return (
        module,
        first,
        second,
        *values.shape,
        float(values[-1, -1]),
        sum(float(values[i, j]) for i, j in entries) / count,
        sum(by_chance(i + 1, j + 1, width) for i, j in entries) / count,
        left.effective_rank,
        right.effective_rank,
    )


def _spectra(name: str, runs: dict[str, RunSpectra], chosen: Comparison, model: str) -> Picture:
    from quanta_bench.report import plots

    panels = [
        plots.Spectra(
            _short(module),
            tuple((label, run.spectra[module].values) for label, run in runs.items()),
        )
        for module in chosen.modules
    ]
    rows: list[tuple[Number, ...]] = [
        (module, label, number, value)
        for module in chosen.modules
        for label, run in runs.items()
        for number, value in enumerate(run.spectra[module].values.tolist(), start=1)
    ]
    header = ("module", "row", "number", "singular_value")
    figure = plots.spectra(panels, title=f"Singular values of the updates\n{model}")
    return Picture(name, figure, Numbers(header, rows))


def _short(module: str) -> str:
    """``v_proj, layer 15`` of ``model.layers.15.self_attn.v_proj``."""
    parts = module.split(".")
    layers = [part for part in parts if part.isdigit()]
    return parts[-1] + (f", layer {layers[0]}" if layers else "")


def _seeds(runs: dict[str, RunSpectra]) -> str:
    seeds = sorted({run.seed for run in runs.values()})
    listed = ", ".join(map(str, seeds))
    return f"seed {listed}" if len(seeds) == 1 else f"each row's first seed ({listed})"


def _notes(
    request: Request, runs: dict[str, RunSpectra], caveats: Sequence[str]
) -> dict[str, list[str]]:
    scores = [
        "Similarity of the spans of the first i and the first j right singular vectors "
        "(paper, Eq. A.1): 1 if one span contains the other, 0 if they are orthogonal, "
        "max(i, j) / n for random spans in n dimensions. Layers are counted from 0.",
        f"Updates are what merging adds to float32 weights, {_seeds(runs)}; vectors beyond a "
        "method's bound on the rank, or below rounding, are left out.",
    ]
    notes = {
        SCORES: scores,
        TRAINING: [request.profile.about],
        CAVEATS: [*caveats, *request.profile.notes],
    }
    return {heading: texts for heading, texts in notes.items() if any(texts)}
