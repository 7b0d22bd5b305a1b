"""The words that name a source, and what is said when the hub is not there."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Literal

from quanta_bench.errors import MissingDataError, SourceError, UsageError, did_you_mean

Kind = Literal["embedded", "hub", "local"]

_ON = {"1", "on", "yes", "true"}


def read_words(text: str) -> tuple[Kind, Path]:
    """The kind of source and, for ``local:DIR``, its folder.

    Raises:
        UsageError: the words name no source.
        SourceError: the folder is not there.
    """
    kind, colon, rest = text.partition(":")
    if kind == "local":
        if not rest:
            raise UsageError(f"The source {text!r} names no folder; write local:DIR.")
        folder = Path(rest).expanduser()
        if not folder.is_dir():
            raise SourceError(f"The source {text!r}: there is no folder {folder.absolute()}.")
        return "local", folder
    if kind == "embedded" and not colon:
        return "embedded", Path()
    if kind == "hub" and not colon:
        return "hub", Path()
    raise UsageError(
        f"There is no source {text!r}. {did_you_mean(kind, ['embedded', 'hub', 'local'])} "
        "A source is written embedded, hub or local:DIR."
    )


def inside(folder: Path, name: str) -> Path:
    """A path below a folder.

    Symbolic links that the folder's owner put there are followed; the name itself may not lead out.

    Raises:
        SourceError: the name leads out of the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        raise SourceError(f"{name!r} leads out of the folder {folder}; name a path inside it.")
    return folder / parts


def hub_is_off() -> bool:
    """Whether the user forbade connections to the hub by ``HF_HUB_OFFLINE``."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _ON


def hub_address() -> str:
    """Address of the hub, which ``HF_ENDPOINT`` changes."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_failure(what: str, error: Exception) -> SourceError:
    """What to tell a user whose model or data set could not be had from the hub.

    Args:
        what: what was looked for, as the beginning of a sentence.
        error: what the hub's client raised.
    """
    # What follows the first line is advice on the client's own options.
    said = next(iter(str(error).strip().splitlines()), "no reason given")[:200]
    # What was not downloaded before is not there; a hub that fails may have it all the same.
    kind = MissingDataError if hub_is_off() else SourceError
    off = " HF_HUB_OFFLINE is set, so only what was downloaded before is looked at."
    return kind(
        f"{what} could not be read from the hub at {hub_address()}: "
        f"{type(error).__name__}: {said.rstrip('.')}.{off if hub_is_off() else ''} "
        "Offline, what is embedded works after `quanta-bench fetch` (the default model, and "
        "`--source embedded`), and so do files of your own (`local:DIR`)."
    )
