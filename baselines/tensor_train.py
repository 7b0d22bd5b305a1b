"""A matrix as a tensor train, and the sizes of its modes.

One form serves two. A matrix product operator (TT-matrix) splits both widths of a matrix into
equally many modes, and its core k has the modes out_k and in_k. A tensor train of the matrix's
entries, read row-major as one long list of numbers (LoRETTA, arXiv:2402.11417), is the same with
modes of size 1: a core has a row mode, a column mode, or, where the rows end inside it, both.
`paired_modes` says which.
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
EIGHTH = 3  # a mode holds 8 = 2^3 entries on average in those tables


class TensorTrain(nn.Module):
    """A linear map whose matrix is a tensor train (a matrix product operator).

    With an output index read row-major as (o_1 .. o_d) and an input index as (i_1 .. i_d), the
    matrix is ``W[o, i] = G_1[:, o_1, i_1, :] G_2[:, o_2, i_2, :] .. G_d[:, o_d, i_d, :]``, a
    product of small matrices. Made with its tensors uninitialised; `reset` gives them a start.

    Attributes:
        cores: core k has shape (rho_{k-1}, out_k, in_k, rho_k), with rho_0 = rho_d = 1.
        bias: shape (out), or ``None``.
        out_modes, in_modes: sizes of the modes.
        ranks: rho_1 .. rho_{d-1}.

    Args:
        out_modes: sizes whose product is the output width.
        in_modes: as many, whose product is the input width.
        rank: every rank rho_1 .. rho_{d-1}, or each in order.
        bias: whether a vector is added.

    Raises:
        ValueError: a size or a rank below 1, or a number of them that does not fit.
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
                f"TensorTrain: out_modes {self.out_modes} and in_modes {self.in_modes}; give as "
                "many of the one as of the other, and at least one"
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
        """Length of the vectors taken."""
        return math.prod(self.in_modes)

    @property
    def out_features(self) -> int:
        """Length of those returned."""
        return math.prod(self.out_modes)

    def parameter_count(self) -> int:
        """Entries of all cores, and of the bias."""
        return sum(parameter.numel() for parameter in self.parameters())

    def rank_bound(self) -> int:
        """The largest rank that the matrix can have.

        Between cores k and k+1 the matrix is a sum of rho_k Kronecker products, and the rank of
        each is at most that of the one factor times that of the other.
        """
        bound = min(self.out_features, self.in_features)
        for cut, rank in enumerate(self.ranks, start=1):
            before = min(math.prod(self.out_modes[:cut]), math.prod(self.in_modes[:cut]))
            after = min(math.prod(self.out_modes[cut:]), math.prod(self.in_modes[cut:]))
            bound = min(bound, rank * before * after)
        return bound

    def reset(self, generator: torch.Generator, std: float, *, zero: bool = False) -> None:
        """Fill the cores with normal values, and the bias uniformly within 1 / sqrt(out).

        Core k has the standard deviation ``std^(1/d) / sqrt(rho_k)``. An entry of the matrix is
        a sum of ``rho_1 .. rho_{d-1}`` products of one entry of each core, uncorrelated, so it has
        the standard deviation ``std``.

        Args:
            generator: on the CPU.
            std: standard deviation of the matrix's entries.
            zero: leave the last core and the bias at zero, and so the whole map.
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

        A few vectors, as when text is generated, go through the cores one after the other. For
        more of them the matrix is built, once for all: one large product is then faster than many
        small ones, also where it is more multiplications.

        Args:
            x: in the dtype of the cores, or any under autocast.

        Raises:
            ValueError: vectors of another length.
        """
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(
                f"TensorTrain: x has shape {tuple(x.shape)}; its last size must be "
                f"{self.in_features}, the product of in_modes {self.in_modes}"
            )
        vectors = math.prod(x.shape[:-1])
        if vectors * self._multiply_adds() < self._building():
            y = self._through_cores(x)
            return y if self.bias is None else y + self.bias.to(y.dtype)
        return functional.linear(x, self.matrix(), self.bias)

    def matrix(self) -> Tensor:
        """The matrix, shape (out, in), in the dtype of the cores; the bias is not in it."""
        contract = _contraction(tuple(tuple(core.shape) for core in self.cores))
        # A contraction of two dtypes is refused before autocast comes to its matrix product. There
        # is no autocast on the meta device.
        device = self.cores[0].device.type
        with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
            entries = contract(*(core.squeeze() for core in self.cores))
        return entries.reshape(self.out_features, self.in_features)

    def _through_cores(self, x: Tensor) -> Tensor:
        """Contract one input mode after the other; what is to come stands last."""
        y, rest = x, self.in_features
        for core in self.cores:
            left, out, size, right = core.shape
            rest //= size
            matrix = core.permute(1, 3, 0, 2).reshape(out * right, left * size)
            y = matrix @ y.reshape(-1, left * size, rest)
        return y.reshape(*x.shape[:-1], self.out_features)

    def _multiply_adds(self) -> int:
        """Of one vector's way through the cores."""
        total, done, rest = 0, 1, self.in_features
        for core in self.cores:
            rest //= core.shape[2]
            total += done * core.numel() * rest
            done *= core.shape[1]
        return total

    def _building(self) -> int:
        """Multiply-adds of the last step of building the matrix, which is most of it."""
        return self.out_features * self.in_features * max(self.ranks, default=1)

    def extra_repr(self) -> str:
        """What stands between the brackets when the module is printed."""
        return f"out_modes={self.out_modes}, in_modes={self.in_modes}, ranks={self.ranks}"


@lru_cache(maxsize=512)
def _contraction(shapes: tuple[tuple[int, ...], ...]) -> Callable[..., Tensor]:
    """From cores, without their axes of size 1, to the matrix's modes, those of the output first.

    The order of contractions is the one with the fewest multiplications.
    """

    def symbols(core: int, axes: Iterable[int]) -> str:
        # Core k has the symbols 3k .. 3k + 3, the last of which is the first of core k + 1.
        return "".join(get_symbol(3 * core + n) for n in axes if shapes[core][n] > 1)

    cores = range(len(shapes))
    terms = ",".join(symbols(core, range(4)) for core in cores)
    result = "".join(symbols(core, (axis,)) for axis in (1, 2) for core in cores)
    operands = [tuple(size for size in shape if size > 1) for shape in shapes]
    expression: Any = contract_expression(f"{terms}->{result}", *operands)
    return cast("Callable[..., Tensor]", expression)


# Sizes of modes.


def paired_modes(
    rows: int, columns: int, modes: Iterable[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The row mode and the column mode of each core, for a train of row-major entries.

    Sizes divide the rows until none are left, and the columns from there on; the one mode inside
    which the rows end is split in two.

    Args:
        rows, columns: the matrix's shape.
        modes: sizes whose product is ``rows * columns``.

    Returns:
        Row modes, column modes; their products by pairs are ``modes``.

    Raises:
        ValueError: another product, or rows that end where no mode can be split.
    """
    modes = tuple(modes)
    if min(modes, default=0) < 1 or math.prod(modes) != rows * columns:
        raise ValueError(
            f"modes {modes} are not sizes whose product is {rows} * {columns} = {rows * columns}"
        )
    row_modes, column_modes = [], []
    left = rows
    for size in modes:
        shared = math.gcd(size, left)
        # The mode is all of rows, or it takes what is left of them.
        if shared not in (size, left):
            raise ValueError(
                f"modes {modes} do not fit {rows} rows of {columns}: the mode {size} is neither a "
                f"divisor nor a multiple of the {left} rows that the modes before it leave. "
                "Reorder them, or leave them to be chosen"
            )
        row_modes.append(shared)
        column_modes.append(size // shared)
        left //= shared
    return tuple(row_modes), tuple(column_modes)


@lru_cache(maxsize=1024)
def choose_modes(rows: int, columns: int) -> tuple[int, ...]:
    """Modes of a matrix whose entries are read row-major, by a rule that gives LoRETTA's tables.

    The rule. There are floor(log_8(rows * columns)) modes, of 4 to 16 each. Of all such lists that
    `paired_modes` can take, it is the one whose first size is the largest, then whose second is,
    and so on. A prime factor above 16 is a mode by itself, first where it divides the rows and last
    where it divides the columns, and the rule is for the rest. Where no list exists, the number of
    modes moves by as little as it can; where none exists for any number, sizes go down to 2.

    So 4096 x 8, 16, 64 and 128 are 16-16-8-4-4, 16-16-16-4-4, 16-16-16-4-4-4 and 16-16-16-8-4-4,
    as in LoRETTA's tables, 576 x 64 is 16-12-12-4-4, and 11008 x 64 is 43-16-16-16-4.

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
    usual = max(1, (entries.bit_length() - 1) // EIGHTH)
    counts = sorted(range(1, len(_primes(entries)) + 1), key=lambda n: (abs(n - usual), n))
    rest = next(
        modes
        for smallest in (SMALLEST, 2)
        for count in counts
        for modes in _mode_lists(rows, columns, count, smallest)
    )
    return (*first, *rest, *last)


def even_modes(width: int, count: int) -> tuple[int, ...]:
    """Split a width into ``count`` modes whose largest is as small as can be, in falling order.

    So 576 into 3 is 9-8-8, and 4 into 3 is 2-2-1; a width that is prime is one mode, and 1s.

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
    """Lists of ``count`` modes that `paired_modes` can take, those with the largest sizes first."""
    entries = rows * columns
    if count == 0:
        if entries == 1:
            yield ()
        return
    if not smallest**count <= entries <= LARGEST**count:
        return
    for size in range(LARGEST, smallest - 1, -1):
        shared = math.gcd(size, rows)
        own = size // shared  # of the columns
        if shared in (size, rows) and columns % own == 0:
            for rest in _mode_lists(rows // shared, columns // own, count - 1, smallest):
                yield (size, *rest)


def _primes(number: int) -> list[int]:
    """Prime factors in rising order, each as often as it divides."""
    found = []
    factor = 2
    while factor * factor <= number:
        while number % factor == 0:
            found.append(factor)
            number //= factor
        factor += 1
    return [*found, number] if number > 1 else found
