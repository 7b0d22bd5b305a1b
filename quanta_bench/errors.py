"""What can go wrong, as a user sees it: a failure, or a command line or file that is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """A failure with a message for the user: what was wrong and what to do.

    The command line prints the message without a traceback and exits with status 1.
    """

    exit_status = 1


class UsageError(BenchError):
    """The request is invalid: an unknown name or key, a bad value. Exit status 2."""

    exit_status = 2


class SourceError(BenchError):
    """A model or data set could not be read from where it was looked for."""


class MissingDataError(SourceError):
    """A source does not have the data that were asked for; those that it has may be valid.

    A table leaves such a column out and says why. Any other :class:`SourceError` stops it: data
    that are there and cannot be read, or a source that is not there at all.
    """


class StorageError(BenchError):
    """A folder cannot be written: the disk is full, or read-only. No other run can succeed."""


class RunCrashedError(BenchError):
    """A run ended by an unforeseen exception; the message names it, its place and its log."""


class OutOfMemoryError(BenchError):
    """A run needed more memory than there is; smaller micro-batches may fit."""


class RunKilledError(BenchError):
    """The process that computed a run ended in the middle of it."""


class DivergedError(BenchError):
    """A training ended in numbers that are NaN or infinite."""


class RunInProgressError(BenchError):
    """Another process is computing this training at the moment."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that points at the nearest known names, or lists them all.

    Args:
        word: what the user wrote.
        known: every name that would have been accepted.

    Returns:
        ``"Did you mean 'lora'?"`` when something is near, otherwise ``"Known: a, b, c."``.
    """
    names = sorted(set(known))
    return near(word, names) or "Known: " + (", ".join(names) or "none") + "."


def near(word: str, known: Iterable[str]) -> str:
    """A sentence that points at the nearest known names; empty if none is near."""
    found = difflib.get_close_matches(word, sorted(set(known)), n=3, cutoff=0.6)
    return "Did you mean " + " or ".join(repr(name) for name in found) + "?" if found else ""
