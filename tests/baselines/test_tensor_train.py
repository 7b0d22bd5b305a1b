"""Tensor trains against their cores, multiplied out by a loop over entries' modes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines.tensor_train import TensorTrain, choose_modes, even_modes, paired_modes

SIZES = st.integers(1, 4)


@st.composite
def trains(draw: st.DrawFn) -> TensorTrain:
    pairs = draw(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=4))
    ranks = draw(st.lists(SIZES, min_size=len(pairs) - 1, max_size=len(pairs) - 1))
    out_modes, in_modes = zip(*pairs, strict=True)
    train = TensorTrain(out_modes, in_modes, ranks, bias=draw(st.booleans())).double()
    train.reset(torch.Generator().manual_seed(draw(st.integers(0, 99))), 1.0)
    return train


def entry_by_entry(train: TensorTrain) -> Tensor:
    """Each entry as a product of slices of the cores, placed by its row-major indices."""
    dense = torch.zeros(train.out_features, train.in_features, dtype=torch.float64)
    for outs in itertools.product(*map(range, train.out_modes)):
        for ins in itertools.product(*map(range, train.in_modes)):
            row = column = 0
            product = torch.eye(1, dtype=torch.float64)
            for core, o, i in zip(train.cores, outs, ins, strict=True):
                row, column = row * core.shape[1] + o, column * core.shape[2] + i
                product = product @ core[:, o, i, :].detach()
            dense[row, column] = product[0, 0]
    return dense


@settings(max_examples=60, deadline=None)
@given(train=trains(), lead=st.lists(st.integers(0, 4), max_size=2), many=st.booleans())
def test_train_is_its_matrix(train: TensorTrain, lead: list[int], many: bool) -> None:
    dense = entry_by_entry(train)
    torch.testing.assert_close(train.matrix(), dense)
    assert torch.linalg.matrix_rank(dense) <= train.rank_bound()
    if many:  # so many that the matrix is built
        lead = [*lead, 2000]
    x = torch.randn(*lead, train.in_features, dtype=torch.float64)
    expected = x @ dense.mT + (0 if train.bias is None else train.bias)
    torch.testing.assert_close(train(x), expected)


@settings(max_examples=8, deadline=None)
@given(train=trains(), vectors=st.sampled_from([2, 50]))
def test_gradients(train: TensorTrain, vectors: int) -> None:
    x = torch.randn(vectors, train.in_features, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(vectors, train.out_features, dtype=torch.float64)
    names, values = zip(*train.named_parameters(), strict=True)

    def loss(x: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        return (torch.func.functional_call(train, parameters, (x,)) * weights).sum()

    assert torch.autograd.gradcheck(loss, (x, *values))


def test_few_and_many_vectors_take_different_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    train = TensorTrain((4, 4, 4), (4, 4, 4), 2)
    train.reset(torch.Generator().manual_seed(0), 0.1)
    built = []
    matrix = TensorTrain.matrix
    monkeypatch.setattr(TensorTrain, "matrix", lambda self: built.append(1) or matrix(self))
    x = torch.randn(1000, 64)
    many = train(x)
    assert built == [1]
    few = torch.cat([train(x[n : n + 1]) for n in range(5)])
    assert built == [1]
    torch.testing.assert_close(few, many[:5])


def test_parameter_count_is_that_of_the_formula() -> None:
    # LoRETTA: rho n_1 + rho^2 (n_2 + .. + n_{d-1}) + rho n_d.
    row_modes, column_modes = paired_modes(4096, 64, (16, 16, 16, 4, 4, 4))
    for rho in (1, 8, 128):
        train = TensorTrain(column_modes, row_modes, rho)
        assert train.parameter_count() == 16 * rho + rho**2 * (16 + 16 + 4 + 4) + 4 * rho
        assert TensorTrain(column_modes, row_modes, rho, bias=True).parameter_count() == (
            train.parameter_count() + 64
        )


def test_train_of_row_major_entries() -> None:
    """The paper's form: cores (rho, n, rho), all entries in one list, rows cut off it."""
    modes = (3, 4, 2, 5)  # 6 rows: the second mode is split, 2 for the rows, 2 for the columns
    row_modes, column_modes = paired_modes(6, 20, modes)
    assert (row_modes, column_modes) == ((3, 2, 1, 1), (1, 2, 2, 5))
    train = TensorTrain(column_modes, row_modes, 3).double()
    train.reset(torch.Generator().manual_seed(1), 1.0)
    flat = [core.transpose(1, 2).flatten(1, 2) for core in train.cores]
    assert [core.shape for core in flat] == [(1, 3, 3), (3, 4, 3), (3, 2, 3), (3, 5, 1)]
    entries = torch.einsum("aib,bjc,ckd,dle->ijkl", *flat)
    torch.testing.assert_close(train.matrix(), entries.reshape(6, 20).T)


def test_entries_start_with_the_standard_deviation_asked_for() -> None:
    train = TensorTrain((4, 4, 4), (3, 3, 3), 6)
    generator = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(300):
        train.reset(generator, 0.05)
        squares.append(train.matrix().detach().square().mean())
    assert torch.stack(squares).mean().sqrt() == pytest.approx(0.05, rel=0.05)


def test_cores_start_as_published() -> None:
    """N(0, 1) / sqrt(rho_k), times the d-th root of the entries' standard deviation."""
    train = TensorTrain((40, 40, 40), (1, 1, 1), (30, 50))
    train.reset(torch.Generator().manual_seed(0), 0.001)
    for core, rank in zip(train.cores, (30, 50, 1), strict=True):
        samples = core.detach().flatten()
        expected = 0.1 / math.sqrt(rank)
        assert samples.std() == pytest.approx(expected, rel=4 / math.sqrt(len(samples)))
        assert samples.mean().abs() < 5 * expected / math.sqrt(len(samples))


def test_zero_start_is_zero_with_one_core() -> None:
    train = TensorTrain((2, 3), (3, 2), 4, bias=True)
    train.reset(torch.Generator().manual_seed(0), 1.0, zero=True)
    assert train(torch.randn(5, 6)).abs().max() == 0
    assert train.cores[0].abs().min() > 0


def test_bias_starts_within_its_bound() -> None:
    train = TensorTrain((20, 20), (2, 2), 2, bias=True)
    train.reset(torch.Generator().manual_seed(0), 1.0)
    assert train.bias is not None
    assert 0.95 / 20 < train.bias.abs().max() <= 1 / 20


@pytest.mark.parametrize("vectors", [1, 500])
def test_autocast(vectors: int) -> None:
    train = TensorTrain((4, 4), (4, 4), 4, bias=True)
    train.reset(torch.Generator().manual_seed(0), 0.5)
    x = torch.randn(vectors, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = train(x.bfloat16())
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), train(x), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), (2,), 2), r"out_modes \(2, 3\) and in_modes \(2,\)"),
        (((), (), 2), "at least one"),
        (((2, 0), (2, 2), 2), r"out_modes \(2, 0\)"),
        (((2, 2), (2, -1), 2), r"in_modes \(2, -1\)"),
        (((2, 2), (2, 2), 0), r"ranks \(0,\)"),
        (((2, 2), (2, 2), (3, 3)), "2 ranks between 2 cores"),
    ],
)
def test_bad_trains(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorTrain(*arguments)


def test_vectors_of_another_length() -> None:
    with pytest.raises(ValueError, match=r"\(3, 5\); its last size must be 4"):
        TensorTrain((2, 2), (2, 2), 1)(torch.zeros(3, 5))


# Sizes of modes.


@pytest.mark.parametrize(
    ("bottleneck", "table"),
    [
        (8, (16, 16, 8, 4, 4)),
        (16, (16, 16, 16, 4, 4)),
        (64, (16, 16, 16, 4, 4, 4)),
        (128, (16, 16, 16, 8, 4, 4)),
    ],
)
def test_tables_of_the_paper(bottleneck: int, table: tuple[int, ...]) -> None:
    assert choose_modes(4096, bottleneck) == table
    assert choose_modes(bottleneck, 4096) == table


@pytest.mark.parametrize(
    ("shape", "modes"),
    [
        ((576, 64), (16, 12, 12, 4, 4)),  # not 16-16-9-4-4: the rows end within the 9
        ((64, 576), (16, 16, 9, 4, 4)),
        ((11008, 64), (43, 16, 16, 16, 4)),
        ((64, 11008), (16, 16, 16, 4, 43)),
        ((1, 1), (1,)),
        ((1, 3), (3,)),
    ],
)
def test_modes_of_other_widths(shape: tuple[int, int], modes: tuple[int, ...]) -> None:
    assert choose_modes(*shape) == modes


@settings(max_examples=300, deadline=None)
@given(rows=st.integers(1, 20000), columns=st.integers(1, 300))
def test_chosen_modes_fit(rows: int, columns: int) -> None:
    for shape in ((rows, columns), (columns, rows)):
        modes = choose_modes(*shape)
        pairs = paired_modes(*shape, modes)
        assert tuple(map(math.prod, pairs)) == shape
        assert tuple(a * b for a, b in zip(*pairs, strict=True)) == modes
        for size in modes:
            assert size <= 16 or all(size % factor for factor in range(2, size))


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 12))
def test_chosen_modes_are_the_largest_first(rows: int, columns: int) -> None:
    """By trying all lists of that many sizes from 4 to 16, in falling order."""
    count = max(1, int(math.log(rows * columns, 8) + 1e-9))
    for modes in itertools.product(range(16, 3, -1), repeat=count):
        if math.prod(modes) == rows * columns and _splits(rows, columns, modes):
            assert choose_modes(rows, columns) == modes
            return


def _splits(rows: int, columns: int, modes: tuple[int, ...]) -> bool:
    """Whether some cut of the list, perhaps inside one mode, leaves the rows before it."""
    for cut in range(len(modes)):
        before = math.prod(modes[:cut])
        if rows % before == 0 and modes[cut] % (rows // before) == 0:
            return True
    return False


@settings(max_examples=100, deadline=None)
@given(width=st.integers(1, 400), count=st.integers(1, 4))
def test_even_modes_have_the_smallest_largest(width: int, count: int) -> None:
    modes = even_modes(width, count)
    assert len(modes) == count
    assert math.prod(modes) == width
    assert list(modes) == sorted(modes, reverse=True)
    divisors = [size for size in range(1, max(modes)) if width % size == 0]
    smaller = itertools.combinations_with_replacement(divisors, count)
    assert all(math.prod(split) != width for split in smaller)


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        ((4, 4), "whose product is 6 \\* 4 = 24"),
        ((6, -1, -4), "whose product is"),
        ((), "whose product is"),
        ((4, 6), "the mode 4 is neither a divisor nor a multiple of the 6 rows"),
    ],
)
def test_modes_that_do_not_fit(modes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_modes(6, 4, modes)


def test_widths_below_1() -> None:
    with pytest.raises(ValueError, match="0 by 4"):
        choose_modes(0, 4)
    with pytest.raises(ValueError, match="4 into 0 modes"):
        even_modes(4, 0)
