"""Similarity of two weight updates: the overlap of their leading singular subspaces.

High similarity over many singular vectors means that fine-tuning uses many directions (a high
"intrinsic rank"); a similarity that decays at once means that the rest is noise. QuanTA paper,
Appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quanta_bench.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

    from quanta_bench.method import Method


@dataclass(frozen=True)
class Spectrum:
    """The singular values and right singular vectors of an update.

    Attributes:
        values: singular values, largest first, shape (k,).
        right: right singular vectors as columns, shape (in, k).
    """

    values: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """The number of singular values above rounding, by the rule of `torch.linalg.matrix_rank`.

        For an update computed as the difference of two weights, this also counts their rounding.
        """
        if not len(self.values):
            return 0
        tolerance = self.values[0] * max(self.right.shape) * torch.finfo(self.values.dtype).eps
        return int((self.values > tolerance).sum())

    @property
    def effective_rank(self) -> float:
        """``(sum s)^2 / sum s^2``: how many directions carry the update, between 1 and the rank."""
        total = self.values.sum()
        return float(total**2 / (self.values**2).sum()) if total else 0.0


def spectrum(update: Tensor) -> Spectrum:
    """The spectrum of an update (out, in), in double precision."""
    _, values, right = torch.linalg.svd(update.double(), full_matrices=False)
    return Spectrum(values, right.mH)


@dataclass(frozen=True)
class Update:
    """What a method adds to one weight.

    Attributes:
        matrix: shape (out, in), float32 or better. As the difference of two weights it contains
            their rounding, so its numerical rank means nothing.
        bound: the method's upper bound on its rank, if known.
    """

    matrix: Tensor
    bound: int | None = None

    def spectrum(self) -> Spectrum:
        """Its spectrum without vectors that are only rounding error."""
        full = spectrum(self.matrix)
        rank = full.rank if self.bound is None else min(self.bound, full.rank)
        return Spectrum(full.values[:rank], full.right[:, :rank])


def by_chance(first: int, second: int, width: int) -> float:
    """The mean similarity of random spans of ``first`` and ``second`` of ``width`` dimensions.

    A projection on a random span of j dimensions keeps j / width of a vector's square, and so
    i j / width of those of i vectors, of which Eq. A.1 takes the share of ``min(i, j)``.
    """
    return max(first, second) / width


def by_chance_each(rows: int, columns: int, width: int) -> Tensor:
    """:func:`by_chance` for the first i of ``rows`` and the first j of ``columns`` vectors.

    Returns:
        Shape (rows, columns), float64.
    """
    first = torch.arange(1, rows + 1, dtype=torch.float64)
    second = torch.arange(1, columns + 1, dtype=torch.float64)
    return torch.maximum(first[:, None], second[None, :]) / width


def similarity(left: Tensor, right: Tensor) -> Tensor:
    """Similarity of the spans of the first i columns and of the first j (paper, Eq. A.1).

    ``phi(i, j) = |left[:, :i]^T right[:, :j]|_F^2 / min(i, j)``: 1 if one span contains the other,
    0 if they are orthogonal.

    Args:
        left: orthonormal columns, shape (d, m).
        right: orthonormal columns, shape (d, n).

    Returns:
        Shape (m, n); entry ``[i - 1, j - 1]`` is ``phi(i, j)``.

    Raises:
        UsageError: the columns differ in length.
    """
    if left.shape[0] != right.shape[0]:
        raise UsageError(
            f"These updates act on inputs of widths {left.shape[0]} and {right.shape[0]}; "
            "only updates of the same module can be compared."
        )
    overlap = (left.mH @ right).abs().square().cumsum(0).cumsum(1)
    first = torch.arange(1, left.shape[1] + 1, device=overlap.device)
    second = torch.arange(1, right.shape[1] + 1, device=overlap.device)
    return overlap / torch.minimum(first[:, None], second[None, :])


def updates(
    method: Method[Any], base: nn.Module, adapter: Path, modules: Sequence[str]
) -> dict[str, Update]:
    """What a trained method adds to the weights of given modules.

    Computed as the change made by merging, so it works for every mergeable method.

    Args:
        method: the trained method.
        base: the base model, preferably float32: a merge into bfloat16 is rounded. It is modified
            and must not be used afterwards.
        adapter: the folder saved by the method.
        modules: full names of modules, such as ``model.layers.15.self_attn.q_proj``.

    Returns:
        The update of each module.

    Raises:
        UsageError: the model has no such module, or the module's weight is not a matrix.
        BenchError: the method cannot be merged.
    """
    before = {name: matrix_of(base, name).clone() for name in modules}
    adapted = method.load(base, adapter)
    bounds = method.ranks(adapted)
    merged = method.merge(adapted)
    return {
        name: Update(matrix_of(merged, name) - weight, _bound(bounds, name))
        for name, weight in before.items()
    }


def _bound(ranks: Mapping[str, Mapping[str, tuple[int, int]]], name: str) -> int | None:
    """A module's bound; wrappers of an adapted model add prefixes to the module's name."""
    for module, bounds in ranks.items():
        if "update" in bounds and (module == name or module.endswith(f".{name}")):
            return bounds["update"][1]
    return None


def matrix_of(model: nn.Module, name: str) -> Tensor:
    """A module's weight, shape (out, in), float32 or better.

    Raises:
        UsageError: the model has no such module, or the module's weight is not a matrix.
    """
    from transformers.pytorch_utils import Conv1D

    known = {
        full_name: module
        for full_name, module in model.named_modules()
        if getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }
    if name not in known:
        raise UsageError(f"The model has no weight matrix in {name!r}. {did_you_mean(name, known)}")
    weight: Any = known[name].weight
    promoted = torch.promote_types(weight.dtype, torch.float32)
    matrix: Tensor = weight.detach().to(promoted)
    return matrix.mT if isinstance(known[name], Conv1D) else matrix
