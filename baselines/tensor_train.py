"""Matrices as tensor trains, and the choice of their mode sizes.

One class covers two forms. A matrix product operator (TT-matrix) splits both widths of a matrix
into the same number of modes; core k has the modes out_k and in_k. A tensor train of the matrix's
entries in row-major order (LoRETTA, arXiv:2402.11417) is the special case with modes of size 1: a
core has a row mode, a column mode, or both if the boundary between rows and columns falls inside
it. `paired_modes` computes which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, cast

import torch
from opt_einsum import contract_expression, get_symbol
from torch import Tensor, nn
from torch.nn import functional

from baselines.tuners.initial import normal_, uniform_

SMALLEST, LARGEST = 4, 16  # sizes of modes in LoRETTA's tables
BITS_PER_MODE = 3  # modes in those tables have 8 = 2^3 entries on average


class TensorTrain(nn.Module):
    """A linear map whose matrix is a tensor train (a matrix product operator).

    With an output index read row-major as (o_1 .. o_d) and an input index as (i_1 .. i_d), the
    matrix is ``W[o, i] = G_1[:, o_1, i_1, :] G_2[:, o_2, i_2, :] .. G_d[:, o_d, i_d, :]``, a
    product of small matrices. Tensors are created uninitialised; `reset` initialises them.

    Attributes:
        cores: core k has shape (rho_{k-1}, out_k, in_k, rho_k), with rho_0 = rho_d = 1.
        bias: shape (out), or ``None``.
        out_modes, in_modes: sizes of the modes.
        ranks: rho_1 .. rho_{d-1}.

    Args:
        out_modes: sizes whose product is the output width.
        in_modes: as many sizes, whose product is the input width.
        rank: one value for all ranks rho_1 .. rho_{d-1}, or one per rank.
        bias: whether to add a bias vector.

    Raises:
        ValueError: a size or rank below 1, or a wrong number of them.
    """

    def __init__(
        self,
        out_modes: Iterable[int],
        in_modes: Iterable[int],
        rank: int | Sequence[int],
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.out_modes, self.in_modes = tuple(out_modes), tuple(in_modes)
        count = len(self.out_modes)
        if not count or len(self.in_modes) != count:
            raise ValueError(
                f"TensorTrain: out_modes {self.out_modes} and in_modes {self.in_modes}; give the "
                "same number of each, at least one"
            )
        self.ranks = (rank,) * (count - 1) if isinstance(rank, int) else tuple(rank)
        if len(self.ranks) != count - 1:
            raise ValueError(f"TensorTrain: {len(self.ranks)} ranks between {count} cores")
        for what in ("out_modes", "in_modes", "ranks"):
            if min(getattr(self, what), default=1) < 1:
                raise ValueError(
                    f"TensorTrain: {what} {getattr(self, what)}; each is a positive integer"
                )
        ranks = (1, *self.ranks, 1)
        shapes = zip(ranks[:-1], self.out_modes, self.in_modes, ranks[1:], strict=True)
        self.cores = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.bias = nn.Parameter(torch.empty(self.out_features)) if bias else None

    @property
    def in_features(self) -> int:
        """Input width."""
        return math.prod(self.in_modes)

    @property
    def out_features(self) -> int:
        """Output width."""
        return math.prod(self.out_modes)

    def parameter_count(self) -> int:
        """Number of entries of all cores and the bias."""
        return sum(parameter.numel() for parameter in self.parameters())

    def rank_bound(self) -> int:
        """The largest rank that the matrix can have.

        Between cores k and k+1, the matrix is a sum of rho_k Kronecker products; the rank of each
        is at most the product of its factors' ranks.
        """
        bound = min(self.out_features, self.in_features)
        for cut, rank in enumerate(self.ranks, start=1):
            before = min(math.prod(self.out_modes[:cut]), math.prod(self.in_modes[:cut]))
            after = min(math.prod(self.out_modes[cut:]), math.prod(self.in_modes[cut:]))
            bound = min(bound, rank * before * after)
        return bound

    def reset(self, generator: torch.Generator, std: float, *, zero: bool = False) -> None:
        """Initialise the cores normally, and the bias uniformly within 1 / sqrt(out).

        Core k has standard deviation ``std^(1/d) / sqrt(rho_k)``. A matrix entry is a sum of
        ``rho_1 * .. * rho_{d-1}`` uncorrelated products of one entry per core, so its standard
        deviation is ``std``.

        Args:
            generator: a CPU generator.
            std: standard deviation of the matrix entries.
            zero: set the last core and the bias, and thereby the whole map, to zero.
        """
        share = std ** (1 / len(self.cores))
        for core, rank in zip(self.cores, (*self.ranks, 1), strict=True):
            normal_(core, share / math.sqrt(rank), generator)
        if self.bias is not None:
            uniform_(self.bias, 1 / math.sqrt(self.out_features), generator)
        if zero:
            nn.init.zeros_(self.cores[-1])
            if self.bias is not None:
                nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``.

        A few vectors, as in text generation, are contracted with one core after the other. For more
        vectors the matrix is built once: one large product is then faster than many small ones,
        even if it takes more multiplications.

        Args:
            x: in the dtype of the cores; any dtype under autocast.

        Raises:
            ValueError: vectors of the wrong length.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"TensorTrain: x has shape {tuple(x.shape)}; its last size must be "
                f"{self.in_features}, the product of in_modes {self.in_modes}"
            )
        vectors = math.prod(x.shape[:-1])
        if vectors * self._multiply_adds() < self._build_multiply_adds():
            y = self._through_cores(x)
            return y if self.bias is None else y + self.bias.to(y.dtype)
        return functional.linear(x, self.matrix(), self.bias)

    def matrix(self) -> Tensor:
        """The matrix, shape (out, in), in the dtype of the cores, without the bias."""
        contract = _contraction(tuple(tuple(core.shape) for core in self.cores))
        # opt_einsum rejects mixed dtypes, which autocast would produce between contractions. The
        # meta device has no autocast.
        device = self.cores[0].device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            entries = contract(*(core.squeeze() for core in self.cores))
        return entries.reshape(self.out_features, self.in_features)

    def _through_cores(self, x: Tensor) -> Tensor:
        """Contract one input mode after the other; the remaining modes stay last."""
        y, rest = x, self.in_features
        for core in self.cores:
            left, out, size, right = core.shape
            rest //= size
            matrix = core.permute(1, 3, 0, 2).reshape(out * right, left * size)
            y = matrix @ y.reshape(-1, left * size, rest)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _multiply_adds(self) -> int:
        """Multiply-adds of passing one vector through the cores."""
        total, done, rest = 0, 1, self.in_features
        for core in self.cores:
            rest //= core.shape[2]
            total += done * core.numel() * rest
            done *= core.shape[1]
        return total

    def _build_multiply_adds(self) -> int:
        """Multiply-adds of the last step of building the matrix, which dominates."""
        return self.out_features * self.in_features * max(self.ranks, default=1)

    def extra_repr(self) -> str:
        """The arguments shown in the module's ``repr``."""
        return f"out_modes={self.out_modes}, in_modes={self.in_modes}, ranks={self.ranks}"


@lru_cache(maxsize=512)
def _contraction(shapes: tuple[tuple[int, ...], ...]) -> Callable[..., Tensor]:
    """Contract cores, without their axes of size 1, to the matrix's modes, output modes first.

    Uses the contraction order with the fewest multiplications.
    """

    def symbols(core: int, axes: Iterable[int]) -> str:
        # Core k has the symbols 3k .. 3k + 3; core k + 1 starts with the last of them.
        return "".join(get_symbol(3 * core + n) for n in axes if shapes[core][n] > 1)

    cores = range(len(shapes))
    terms = ",".join(symbols(core, range(4)) for core in cores)
    result = "".join(symbols(core, (axis,)) for axis in (1, 2) for core in cores)
    operands = [tuple(size for size in shape if size > 1) for shape in shapes]
    expression: Any = contract_expression(f"{terms}->{result}", *operands)
    return cast("Callable[..., Tensor]", expression)


# Mode sizes.


def paired_modes(
    rows: int, columns: int, modes: Iterable[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The row mode and column mode of each core, for a train of row-major entries.

    Modes first factor the rows, then the columns; the mode that spans the boundary is split in two.

    Args:
        rows, columns: the matrix's shape.
        modes: sizes whose product is ``rows * columns``.

    Returns:
        Row modes and column modes; their elementwise products are ``modes``.

    Raises:
        ValueError: the product is different, or no mode can be split at the boundary.
    """
    modes = tuple(modes)
    if min(modes, default=0) < 1 or math.prod(modes) != rows * columns:
        raise ValueError(
            f"modes {modes} are not sizes whose product is {rows} * {columns} = {rows * columns}"
        )
    row_modes, column_modes = [], []
    remaining = rows
    for size in modes:
        shared = math.gcd(size, remaining)
        # The mode must divide the remaining rows, or be a multiple of them.
        if shared not in (size, remaining):
            raise ValueError(
                f"modes {modes} do not fit {rows} rows of {columns}: the mode {size} is neither a "
                f"divisor nor a multiple of the {remaining} rows that the modes before it leave. "
                "Reorder the modes, or omit them to have them chosen"
            )
        row_modes.append(shared)
        column_modes.append(size // shared)
        remaining //= shared
    return tuple(row_modes), tuple(column_modes)


@lru_cache(maxsize=1024)
def choose_modes(rows: int, columns: int) -> tuple[int, ...]:
    """Modes for the row-major entries of a matrix, by a rule that reproduces LoRETTA's tables.

    There are floor(log_8(rows * columns)) modes of size 4 to 16. Of all such lists that
    `paired_modes` accepts, the lexicographically largest is chosen. A prime factor above 16 is a
    mode by itself, first if it divides the rows and last if it divides the columns; the rule
    applies to the rest. If no list exists, the number of modes changes as little as possible; if
    none exists for any number, sizes may be as small as 2.

    For example, 4096 x 8, 16, 64 and 128 give 16-16-8-4-4, 16-16-16-4-4, 16-16-16-4-4-4 and
    16-16-16-8-4-4, as in LoRETTA's tables; 576 x 64 gives 16-12-12-4-4, and 11008 x 64 gives
    43-16-16-16-4.

    Raises:
        ValueError: a width below 1.
    """
    if min(rows, columns) < 1:
        raise ValueError(f"choose_modes: a matrix of {rows} by {columns}; both are at least 1")
    first = [prime for prime in _primes(rows) if prime > LARGEST]
    last = [prime for prime in _primes(columns) if prime > LARGEST]
    rows, columns = rows // math.prod(first), columns // math.prod(last)
    entries = rows * columns
    if entries == 1:
        return (*first, *last) or (1,)
    usual = max(1, (entries.bit_length() - 1) // BITS_PER_MODE)
    counts = sorted(range(1, len(_primes(entries)) + 1), key=lambda n: (abs(n - usual), n))
    rest = next(
        modes
        for smallest in (SMALLEST, 2)
        for count in counts
        for modes in _mode_lists(rows, columns, count, smallest)
    )
    return (*first, *rest, *last)


def even_modes(width: int, count: int) -> tuple[int, ...]:
    """Split a width into ``count`` modes in descending order, with the smallest possible maximum.

    For example, 576 into 3 is 9-8-8, and 4 into 3 is 2-2-1; a prime width is one mode and 1s.

    Raises:
        ValueError: a width or a count below 1.
    """
    if min(width, count) < 1:
        raise ValueError(f"even_modes: {width} into {count} modes; both are at least 1")
    if count == 1:
        return (width,)
    splits = [
        (size, *even_modes(width // size, count - 1))
        for size in range(1, width + 1)
        if width % size == 0
    ]
    return min(tuple(sorted(split, reverse=True)) for split in splits)


def _mode_lists(rows: int, columns: int, count: int, smallest: int) -> Iterator[tuple[int, ...]]:
    """Lists of ``count`` modes that `paired_modes` accepts, lexicographically largest first."""
    entries = rows * columns
    if count == 0:
        if entries == 1:
            yield ()
        return
    if not smallest**count <= entries <= LARGEST**count:
        return
    for size in range(LARGEST, smallest - 1, -1):
        shared = math.gcd(size, rows)
        column_size = size // shared
        if shared in (size, rows) and columns % column_size == 0:
            for rest in _mode_lists(rows // shared, columns // column_size, count - 1, smallest):
                yield (size, *rest)


def _primes(number: int) -> list[int]:
    """Prime factors in ascending order, with multiplicity."""
    factors = []
    factor = 2
    while factor * factor <= number:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return [*factors, number] if number > 1 else factors
