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


def kept_code(folder: Path) -> dict[str, CodeVersion]:
    """The code that an interrupted training was computed by; empty if it was not recorded.

    Args:
        folder: where its checkpoints are kept.

    Raises:
        ValueError, TypeError, AttributeError: the file is incomplete.
    """
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    stored = json.loads(text)
    return {name: CodeVersion.model_validate(version) for name, version in stored.items()}
