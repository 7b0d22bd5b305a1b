"""How the runs of a suite are drawn, as its file says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from quanta_bench.spec import Frozen

Modules = tuple[str, ...]
Pairs = tuple[tuple[str, str], ...]


class Drawing(Frozen):
    """The part of a suite that makes it a figure.

    Attributes:
        kind: ``parameters`` draws the first task's metric against trainable parameters, a curve a
            method; ``similarity`` compares the subspaces of pairs of updates.
        modules: of a similarity, the modules whose updates are compared, by profile; full names,
            such as ``model.layers.15.self_attn.q_proj``.
        pairs: of a similarity, the two rows of each comparison, by profile and then by label. The
            vectors of the first run downwards in the picture.
        vectors: of a similarity, how many vectors of an update are compared at most.
    """

    kind: Literal["parameters", "similarity"]
    modules: dict[str, Modules] = Field(default_factory=dict)
    pairs: dict[str, Pairs] = Field(default_factory=dict)
    vectors: int = Field(128, ge=1)
