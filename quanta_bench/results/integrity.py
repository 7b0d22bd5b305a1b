"""Whether a record is unchanged: hashes of its content and of the files stored with it.

A hash guards against truncation, bit rot and edits by hand, not against someone who forges it too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from quanta_bench.errors import BenchError
from quanta_bench.results.records import SCHEMA_VERSION, M, Result, TrainingRecord
from quanta_bench.spec import canonical
from quanta_bench.utils.fingerprint import file_digest

R = TypeVar("R", Result, TrainingRecord)

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
"""Endings of files that could run code when opened; no method writes them."""


class DamagedError(BenchError):
    """Stored files do not hold what was written.

    Args:
        path: the file or folder.
        reason: one or two words for a folder's name: ``predictions``, ``checksum``.
        message: what does not hold.
    """

    def __init__(self, path: Path, reason: str, message: str) -> None:
        super().__init__(f"{path}: {message}.")
        self.path = path
        self.reason = reason


class NewerSchemaError(BenchError):
    """A record was written by a later version of the suite, and is left as it is."""


def sealed(record: R) -> R:
    """A record with the hashes of its spec and of its own content."""
    data = json.loads(record.model_dump_json())
    data["spec_sha256"] = json_digest(data["evaluation" if isinstance(record, Result) else "spec"])
    del data["checksum"]
    hashes = {"spec_sha256": data["spec_sha256"], "checksum": json_digest(data)}
    return record.model_copy(update=hashes)


def json_digest(value: Any) -> str:
    """sha256 of a value's canonical JSON.

    Raises:
        ValueError: a number is not finite.
    """
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def read_record(path: Path, kind: type[M]) -> M:
    """Read a record and check it against its hashes.

    Raises:
        NewerSchemaError: a later version of the suite wrote it.
        DamagedError: it is not what was written.
        OSError: the file cannot be read.
    """
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise DamagedError(path, "unreadable", f"not JSON ({error})") from None
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path} was written by a later version of quanta-bench (schema {version}; this one "
            f"reads up to {SCHEMA_VERSION}). It is left as it is: install that version, or name "
            "another folder with --results."
        )
    if version == SCHEMA_VERSION:
        _check_hashes(path, data)
    try:
        record = kind.model_validate(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DamagedError(
            path, "unreadable", f"not a {kind.__name__} ({where}: {problem['msg']})"
        ) from None
    for task, scored in record.tasks.items() if isinstance(record, Result) else ():
        if scored.metric not in scored.metrics:
            raise DamagedError(path, "unreadable", f"{task} has no {scored.metric}")
    return record


def _check_hashes(path: Path, data: dict[str, Any]) -> None:
    content = {name: value for name, value in data.items() if name != "checksum"}
    specs = [(data.get("evaluation", data.get("spec")), data.get("spec_sha256"))]
    training = data.get("training")
    if isinstance(training, dict) and training.get("spec_sha256"):
        specs.append((training.get("spec"), training["spec_sha256"]))
    try:
        whole = json_digest(content) == data.get("checksum")
        same = all(json_digest(spec) == digest for spec, digest in specs)
    except ValueError as error:
        raise DamagedError(path, "checksum", f"not JSON ({error})") from None
    if not same:
        raise DamagedError(path, "spec", "its spec was changed after it was written")
    if not whole:
        raise DamagedError(path, "checksum", "its content was changed after it was written")


def folder_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its relative path; none of a missing folder."""
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check_adapter(folder: Path, record: TrainingRecord) -> None:
    """Check an adapter's files against its training's record, without loading any.

    Raises:
        DamagedError: a file is missing, was changed or does not belong there.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    pickles = sorted(name for name in names if Path(name).suffix in PICKLES)
    if pickles:
        raise DamagedError(
            folder, "adapter", f"{pickles[0]} is a pickle, which can run foreign code; not opened"
        )
    if record.schema_version < SCHEMA_VERSION:
        return
    missing, foreign = sorted(record.adapter.keys() - names), sorted(names - record.adapter.keys())
    if missing or foreign:
        raise DamagedError(
            folder,
            "adapter",
            f"{missing[0]} is missing" if missing else f"{foreign[0]} does not belong to it",
        )
    for name, digest in record.adapter.items():
        if file_digest(folder / name) != digest:
            raise DamagedError(folder, "adapter", f"{name} was changed after it was written")
