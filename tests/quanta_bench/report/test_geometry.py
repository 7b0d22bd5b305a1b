"""The geometry of updates, against updates made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quanta_bench.errors import UsageError
from quanta_bench.report import geometry
from quanta_bench.report.geometry import intruders, measure, modules
from quanta_bench.report.subspace import Update
from quanta_bench.utils.plain_console import PlainConsole


def orthonormal(size: int, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, count, generator=generator).double()).Q


RIGHT = orthonormal(25, 25, 1)


def weight() -> torch.Tensor:
    """Singular values from 10 down to 1; its left vectors are the first 20 of 30 axes."""
    values = torch.linspace(10, 1, 20).double()
    return torch.eye(30, 20).double() @ torch.diag(values) @ RIGHT[:, :20].mT


@pytest.mark.parametrize("count", [0, 1, 3])
def test_directions_that_the_base_lacks_are_intruders(count: int) -> None:
    base = weight()
    update = torch.zeros_like(base)
    for n in range(count):
        # Larger than any of the base's, and orthogonal to all of its vectors.
        update += 50 * torch.outer(torch.eye(30)[29 - n].double(), RIGHT[:, 24 - n])
    assert intruders(base, base + update) == count


def test_directions_that_the_base_has_are_none() -> None:
    base = weight()
    update = 30 * torch.outer(torch.eye(30)[3].double(), orthonormal(25, 1, 3)[:, 0])
    assert intruders(base, base + update) == 0
    assert intruders(base, 3 * base) == 0


def test_rank_drift_and_effective_rank_are_those_of_the_matrix() -> None:
    base = weight()
    left, right = orthonormal(30, 4, 4), orthonormal(25, 4, 5)
    update = left @ torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0]).double()) @ right.mT
    found = measure("row", "A", 0, "m", base, Update(update))
    assert found.rank == 4
    assert found.effective_rank == pytest.approx(64 / 20)
    assert found.drift == pytest.approx(20**0.5 / float(torch.linalg.matrix_norm(base)))
    assert measure("row", "A", 0, "m", base, Update(update, 2)).effective_rank == pytest.approx(2)
    nothing = measure("row", "A", 0, "m", base, Update(torch.zeros_like(base), 8))
    assert (nothing.rank, nothing.effective_rank, nothing.drift, nothing.intruders) == (0, 0, 0, 0)


def test_modules_are_found_by_a_regular_expression() -> None:
    model = nn.Sequential()
    model.add_module("q_proj", nn.Linear(2, 2))
    model.add_module("norm", nn.LayerNorm(2))
    assert modules(model, "q_") == ["q_proj"]
    with pytest.raises(UsageError, match="--modules 'norm'"):
        modules(model, "norm")
    with pytest.raises(UsageError, match="not a regular expression"):
        modules(model, "(")


def test_means_are_over_modules_and_seeds() -> None:
    base, small = weight(), weight() / 100
    found = [measure("row", "A", seed, "m", base, Update((seed + 1) * small)) for seed in (0, 1)]
    (row,) = geometry.means(found)
    assert (row["seeds"], row["modules"]) == (2, 1)
    assert row["drift"] == pytest.approx(0.015)


def test_rows_of_two_models_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    base, small = weight(), weight() / 100
    one, two = (measure("row", model, 0, "m", base, Update(small)) for model in ("A", "B"))
    assert [row["model"] for row in geometry.means([one, two])] == ["A", "B"]
    for found, shown in (([one], False), ([one, two], True)):
        PlainConsole(width=200).print(geometry.on_screen("T", found, []))
        assert ("Model" in capsys.readouterr().out) == shown
