"""Reports of unexpected exceptions: one line with the place, and the traceback in a log."""

from __future__ import annotations

import re
import traceback
from collections.abc import Collection
from pathlib import Path

LOGS = "logs"
"""Sub-folder of a results folder that tracebacks are written to."""


def describe_crash(error: BaseException, packages: Collection[str] = ()) -> str:
    """An exception in one line: its type, its message, and the line of code it comes from.

    Args:
        error: the exception, as it was caught.
        packages: top-level packages of plug-ins. The innermost frame in one of them is named,
            because a library that the plug-in calls may have raised; without one, the innermost
            frame.

    Returns:
        For example ``ValueError: no gate fits (my_method.py, line 12, in adapt)``.
    """
    text = " ".join(str(error).split())
    name = type(error).__name__
    place = ""
    frames = list(traceback.walk_tb(error.__traceback__))
    if frames:
        own = [
            (frame, line)
            for frame, line in frames
            if str(frame.f_globals.get("__name__", "")).partition(".")[0] in packages
        ]
        frame, line = (own or frames)[-1]
        place = f" ({frame.f_code.co_filename}, line {line}, in {frame.f_code.co_name})"
    return f"{name}: {text}{place}" if text else f"{name}{place}"


def write_traceback(error: BaseException, folder: Path, name: str) -> Path:
    """Write an exception's whole traceback and return the file.

    Args:
        error: the exception, as it was caught.
        folder: the results folder; the file goes into its sub-folder `LOGS`.
        name: what was computed; the file is named after it, and replaced if it exists.

    Raises:
        OSError: the file cannot be written.
    """
    stem = re.sub(r"[^\w.=-]+", "-", name).strip("-.") or "run"
    path = folder / LOGS / f"{stem[:120]}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = traceback.format_exception(error)
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
    return path


def report_crash(
    error: BaseException, folder: Path, name: str, packages: Collection[str] = ()
) -> str:
    """Log an exception and describe it in a sentence or two, with the path of the log.

    A log that cannot be written, on a full disk for example, is left out.
    """
    described = describe_crash(error, packages)
    try:
        path = write_traceback(error, folder, name)
    except OSError:
        return described
    return f"{described}. The full traceback is in {path}"
