"""What the user says beside a format's name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options of the formats; each takes those that concern it.

    Attributes:
        organization: who evaluated.
        items: whether to write what each item was asked and answered; the data are read for it.
    """

    organization: str = ""
    items: bool = False
