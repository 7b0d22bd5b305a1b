"""How sources are named, and the error shown when the hub cannot be reached."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Literal

from quanta_bench.errors import MissingDataError, SourceError, UsageError, did_you_mean
from quanta_bench.utils.folders import user_path

Kind = Literal["embedded", "hub", "local"]

_ON = {"1", "on", "yes", "true"}


def read_words(text: str) -> tuple[Kind, Path]:
    """Parse a source name into its kind and, for ``local:DIR``, its folder.

    Raises:
        UsageError: the text names no source.
        SourceError: the folder does not exist.
    """
    kind, colon, rest = text.partition(":")
    if kind == "local":
        if not rest:
            raise UsageError(f"The source {text!r} names no folder; write local:DIR.")
        folder = user_path(rest)
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
    """A path inside a folder.

    Symbolic links in the folder are followed; the name itself may not point outside.

    Raises:
        SourceError: the name points outside the folder.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or Path(name).is_absolute():
        raise SourceError(f"{name!r} points outside the folder {folder}; name a path inside it.")
    return folder / parts


def hub_is_off() -> bool:
    """Whether the user disabled connections to the hub with ``HF_HUB_OFFLINE``."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _ON


def hub_address() -> str:
    """The hub's URL, which ``HF_ENDPOINT`` overrides."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_failure(what: str, error: Exception) -> SourceError:
    """The error for a model or data set that could not be read from the hub.

    Args:
        what: the model or data set, as the subject of a sentence.
        error: the exception that the hub's client raised.
    """
    # Importing the client takes a while, and only failures of the hub come here.
    from huggingface_hub.errors import HFValidationError

    # The lines after the first give advice on the client's own options.
    reason = next(iter(str(error).strip().splitlines()), "no reason given")[:200]
    if isinstance(error, HFValidationError):
        return SourceError(
            f"{what} cannot be on a hub, whose names are OWNER/NAME: {reason.rstrip('.')}. "
            "A folder of your own is local:DIR."
        )
    # Offline, what was not downloaded is missing; a hub that fails may still have it.
    kind = MissingDataError if hub_is_off() else SourceError
    offline = " HF_HUB_OFFLINE is set, so only earlier downloads are used."
    return kind(
        f"{what} could not be read from the hub at {hub_address()}: "
        f"{type(error).__name__}: {reason.rstrip('.')}.{offline if hub_is_off() else ''} "
        "To work offline, run `quanta-bench fetch` once and use the embedded default model and "
        "`--source embedded`, or use your own files (`local:DIR`)."
    )
