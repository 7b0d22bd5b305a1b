"""The code of a training, kept beside its checkpoints: other code does not go on with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from quanta_bench.results.records import CodeVersion
from quanta_bench.utils.folders import whole_file

NAME = "code.json"


def keep_code(folder: Path, code: Mapping[str, CodeVersion]) -> None:
    """Store the code that a training is computed by.

    Args:
        folder: where its checkpoints are kept.
        code: as :func:`quanta_bench.results.provenance.code_versions` gives it.
    """
    versions = {name: version.model_dump(mode="json") for name, version in code.items()}
    with whole_file(folder / NAME) as stream:
        stream.write(json.dumps(versions).encode())


def changed_code(folder: Path, code: Mapping[str, CodeVersion]) -> list[str]:
    """What of an interrupted training's code has changed since, in words.

    As with a finished one, the suite counts by its declared version and a plug-in by its source.

    Args:
        folder: where its checkpoints are kept.
        code: the present code.

    Returns:
        Empty where nothing has changed, or there is no checkpoint to go on from.

    Raises:
        ValueError, TypeError, AttributeError: the file is incomplete.
    """
    if not (folder / "last.ckpt").exists():
        return []
    path = folder / NAME
    if not path.exists():
        return ["its code was not recorded"]
    stored = json.loads(path.read_text(encoding="utf-8"))
    kept = {name: CodeVersion.model_validate(version) for name, version in stored.items()}
    return [
        f"the {name.replace(':', ' ')} has changed"
        for name, present in code.items()
        if name not in kept or _identity(name, kept[name]) != _identity(name, present)
    ]


def _identity(name: str, code: CodeVersion) -> int | str:
    return code.version if name == "suite" else code.source
